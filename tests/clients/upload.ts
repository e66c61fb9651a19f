// Uploads an image with the client that openapi-typescript's types make; prints the answer.
// node upload.ts http://127.0.0.1:3000 photo.jpg
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

type Box = components["schemas"]["Box"];

const [, , url, file] = process.argv;
const client = createClient<paths>({ baseUrl: url });

const models = await client.GET("/models/active");
if (models.error) throw new Error(models.error.message);

const { data, error } = await client.POST("/infer", {
  // OpenAPI has no type for a file but "string"
  body: { image: new Blob([readFileSync(file!)]) as unknown as string, confidence: 0.05 },
  bodySerializer(body) {
    const form = new FormData();
    for (const [name, value] of Object.entries(body)) form.append(name, value as string | Blob);
    return form;
  },
});
if (error) throw new Error(`${error.code}: ${error.message}`);

const boxes: Box[] = data.predictions.flatMap((one) => (one.bounding_box ? [one.bounding_box] : []));
console.log(JSON.stringify({ model: models.data.active_model.id, boxes }));

const refused = await client.GET("/jobs/{job_id}", { params: { path: { job_id: "none" } } });
if (refused.error?.code !== "JOB_NOT_FOUND") throw new Error("a missing job was found");
