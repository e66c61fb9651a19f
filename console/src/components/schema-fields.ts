/** Fields of a form, read from the JSON schema of a body in the OpenAPI document. */

/** The parts of a JSON schema that a form understands. */
export interface JsonSchema {
  type?: string;
  title?: string;
  description?: string;
  enum?: (string | number)[];
  anyOf?: JsonSchema[];
  items?: JsonSchema;
  examples?: unknown[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  maxLength?: number;
  properties?: Record<string, JsonSchema>;
  /** Properties of an object that clients see as a free one. */
  "x-properties"?: Record<string, JsonSchema>;
  required?: string[];
  "x-group"?: string;
  "x-hint"?: string;
  "x-advanced"?: boolean;
  "x-default"?: unknown;
  "x-families"?: string[];
  "x-tasks"?: string[];
}

export type Kind = "text" | "number" | "integer" | "switch" | "choice" | "choices" | "list";

export interface FormField {
  /** "hyper.lr0" for a field inside an object. */
  name: string;
  kind: Kind;
  schema: JsonSchema;
  title: string;
  hint: string;
  group: string;
  advanced: boolean;
  required: boolean;
  fallback: unknown;
}

/** A schema without the null that stands for "not given". */
function given(schema: JsonSchema): JsonSchema {
  const kinds = (schema.anyOf ?? []).filter((kind) => kind.type !== "null");
  const list = kinds.find((kind) => kind.type === "array"); // rather than the same as one text
  const kind = list ?? kinds[0];
  return kind ? { ...schema, ...kind, title: schema.title, description: schema.description } : schema;
}

function kindOf(schema: JsonSchema): Kind | null {
  if (schema.enum) return "choice";
  if (schema.type === "array") return schema.items?.enum ? "choices" : "list";
  if (schema.type === "boolean") return "switch";
  if (schema.type === "integer" || schema.type === "number") return schema.type;
  return schema.type === "string" ? "text" : null;
}

/** The fields of a schema in its order, objects inside it included; only those with a group. */
export function fieldsOf(schema: JsonSchema, prefix = ""): FormField[] {
  return Object.entries(schema.properties ?? schema["x-properties"] ?? {}).flatMap(([name, raw]) => {
    if (!raw["x-group"]) return [];
    const about = given(raw);
    if (about.type === "object") return fieldsOf(about, `${prefix}${name}.`);
    const kind = kindOf(about);
    if (!kind) return [];
    return [
      {
        name: prefix + name,
        kind,
        schema: about,
        title: raw.title ?? name,
        hint: raw["x-hint"] ?? raw.description ?? "",
        group: raw["x-group"],
        advanced: raw["x-advanced"] ?? false,
        required: !prefix && (schema.required ?? []).includes(name),
        fallback: raw["x-default"],
      },
    ];
  });
}

export type Values = Record<string, unknown>;

/** What a text typed into a field means; undefined: not given. A wrong number stays text, which the API refuses. */
export function parsed(field: FormField, text: string): unknown {
  const plain = text.trim();
  if (!plain) return undefined;
  if (field.kind === "list") return plain.split(/[,，\n]/).map((one) => one.trim()).filter(Boolean);
  if (field.kind !== "integer" && field.kind !== "number") return plain;
  const value = Number(plain);
  return Number.isFinite(value) ? value : plain;
}

/** The body to send: what was given, with objects for fields inside them. */
export function bodyOf(values: Values): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || value === "") continue;
    const [outer = "", inner] = name.split(".", 2);
    if (inner === undefined) body[outer] = value;
    else body[outer] = { ...((body[outer] as object | undefined) ?? {}), [inner]: value };
  }
  return body;
}

/** The values of a body that was sent: the reverse of `bodyOf`, for the fields of a form. */
export function valuesOf(fields: readonly FormField[], body: Record<string, unknown>): Values {
  const found: Values = {};
  for (const { name } of fields) {
    const [outer = "", inner] = name.split(".", 2);
    const value = inner === undefined ? body[outer] : (body[outer] as Record<string, unknown> | undefined)?.[inner];
    if (value !== undefined && value !== null && value !== "") found[name] = value;
  }
  return found;
}

/** The field that an error message of the API is about: "'epochs' must be …", "lr0 is 7; …". */
export function fieldOf(message: string, fields: readonly FormField[]): string | null {
  const named = /^'?([A-Za-z_][\w.]*)'?(?: must| is\b| are\b|:| has)/.exec(message)?.[1];
  const found = fields.find(({ name }) => name === named || name.endsWith(`.${named}`));
  return found?.name ?? null;
}
