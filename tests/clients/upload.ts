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

// OpenAPI has no type for a file but "string"
const photo = new Blob([readFileSync(file!)]) as unknown as string;

function form(body: object): FormData {
  const made = new FormData();
  for (const [name, values] of Object.entries(body))
    for (const value of [values].flat()) made.append(name, value as string | Blob);
  return made;
}

const { data, error } = await client.POST("/infer", {
  body: { image: [photo], confidence: 0.05 },
  bodySerializer: form,
});
if (error) throw new Error(`${error.code}: ${error.message}`);
// a list for several images, a string for a drawn image
if (typeof data === "string" || Array.isArray(data)) throw new Error("not one answer");
const boxes: Box[] = data.predictions.flatMap((one) => (one.bounding_box ? [one.bounding_box] : []));

const several = await client.POST("/infer", {
  body: { image: [photo, new Blob(["no image"]) as unknown as string], confidence: 0.05 },
  bodySerializer: form,
});
if (!Array.isArray(several.data)) throw new Error("not a list");
const counts = several.data.map((one) => ("error" in one ? one.code : one.predictions.length));
if (counts[0] !== boxes.length || counts[1] !== "INVALID_IMAGE_FORMAT") throw new Error(`${counts}`);

console.log(JSON.stringify({ model: models.data.active_model.id, boxes }));

const refused = await client.GET("/jobs/{job_id}", { params: { path: { job_id: "none" } } });
if (refused.error?.code !== "JOB_NOT_FOUND") throw new Error("a missing job was found");
