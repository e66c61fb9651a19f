/** The forms of the training modes, from the API's own description. */
import { address } from "../../api";
import { fieldsOf, type FormField, type JsonSchema } from "../../components/schema-fields";
import type { ModePath } from "./settings";

interface Document {
  paths: Record<string, { post?: { requestBody?: { content: Record<string, { schema: { $ref?: string } }> } } }>;
  components: { schemas: Record<string, JsonSchema> };
}

let read: Promise<Document> | null = null;

function openapi(): Promise<Document> {
  read ??= fetch(address("/openapi.json"), { credentials: "same-origin" })
    .then((response) => {
      if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
      return response.json() as Promise<Document>;
    })
    .catch((error: unknown) => {
      read = null;
      throw error;
    });
  return read;
}

/** The fields of a mode's form. Throws if the description cannot be read. */
export async function formOf(mode: ModePath): Promise<FormField[]> {
  const { paths, components } = await openapi();
  const body = paths[`/api/training/${mode}`]?.post?.requestBody?.content["application/json"];
  const schema = components.schemas[body?.schema.$ref?.split("/").pop() ?? ""];
  if (!schema) throw new Error(`openapi.json has no body of /api/training/${mode}`);
  return fieldsOf(schema);
}
