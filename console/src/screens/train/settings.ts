/** What a job was asked for, in the words of the training forms. */
export const MODES = ["regular", "freeze-strategy", "incremental", "distillation"] as const;
export type ModePath = (typeof MODES)[number];

/** The part of the address of a mode as jobs name it. */
export function modePath(mode: string | null | undefined): ModePath {
  const path = (mode ?? "regular").replace("_", "-");
  return MODES.find((one) => one === path) ?? "regular";
}

/** The fields of `/api/training/…` that a job's config stands for; that of `/train` has other names. */
export function requested(config: Record<string, unknown>): Record<string, unknown> {
  const { resolved: _, parameters, model_id, dataset_path, batch_size, ...rest } = config;
  const body = { ...((parameters as object | undefined) ?? {}), ...rest } as Record<string, unknown>;
  if (model_id !== undefined) body.model_type = model_id;
  if (dataset_path !== undefined) body.data_path = dataset_path;
  if (batch_size !== undefined) body.batch = batch_size;
  delete body.mode;
  return body;
}

/** A nested object as rows of a table: "hyper.lr0" → 0.01. */
export function rows(value: Record<string, unknown>, prefix = ""): [name: string, value: string][] {
  return Object.entries(value).flatMap(([name, one]): [string, string][] => {
    if (one === null || one === undefined || one === "" || name === "notes") return [];
    if (Array.isArray(one)) return one.length ? [[prefix + name, one.map(String).join(", ")]] : [];
    if (typeof one === "object") return rows(one as Record<string, unknown>, `${prefix}${name}.`);
    return [[prefix + name, String(one)]];
  });
}

const SETTINGS = ["data_path", "model_type", "task", "epochs", "imgsz", "batch", "name"];

/** Rows with the most asked for first. */
export function ordered(found: [string, string][]): [string, string][] {
  const place = (name: string) => (SETTINGS.indexOf(name) + 1 || SETTINGS.length + 1);
  return [...found].sort(([a], [b]) => place(a) - place(b));
}
