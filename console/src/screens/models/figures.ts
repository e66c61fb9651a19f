/** Which metrics of a model are shown, and in which order. */
import type { Schemas } from "../../api";

export type Model = Schemas["Model"];
export type Figures = Record<string, unknown>;

/** The metric that versions are told apart by, as the gate chooses it. */
export function primaryOf(type: Model["type"]): string {
  return type === "classification" ? "accuracy" : "mAP50_95";
}

const SHARES: Record<Model["type"], string[]> = {
  classification: ["accuracy", "accuracy_top5", "precision", "recall", "f1_score"],
  detection: ["mAP50_95", "mAP50", "precision", "recall", "f1_score"],
  segmentation: ["mAP50_95", "mask_mAP50_95", "mask_mAP50", "mAP50", "precision", "recall"],
  pose: ["mAP50_95", "pose_mAP50_95", "pose_mAP50", "mAP50", "precision", "recall"],
};

/** Names of the metrics of a type that there are, the primary first. */
export function sharesOf(type: Model["type"], figures: Figures | null | undefined): string[] {
  return SHARES[type].filter((name) => value(figures, name) !== null);
}

/** A metric as a number; null: it was not measured. */
export function value(figures: Figures | null | undefined, name: string): number | null {
  const found = figures?.[name];
  return typeof found === "number" && Number.isFinite(found) ? found : null;
}

/** Metrics as they are written in the field. */
const NAMES: Record<string, string> = {
  mAP50_95: "mAP50-95",
  mAP50: "mAP50",
  mask_mAP50_95: "mask mAP50-95",
  mask_mAP50: "mask mAP50",
  pose_mAP50_95: "pose mAP50-95",
  pose_mAP50: "pose mAP50",
};

/** The field's own name of a metric; null: it is a word, and is translated. */
export function fieldName(metric: string): string | null {
  return NAMES[metric] ?? null;
}

/** The versions of each name, the oldest first; names with the active version first, then by time. */
export function byName(models: readonly Model[]): { name: string; versions: Model[] }[] {
  const found = new Map<string, Model[]>();
  for (const model of models) found.set(model.name, [...(found.get(model.name) ?? []), model]);
  const rows = [...found].map(([name, versions]) => ({ name, versions: versions.sort((a, b) => (a.created_at < b.created_at ? -1 : 1)) }));
  const rank = (row: { versions: Model[] }) => (row.versions.some((one) => one.active) ? 0 : 1);
  const newest = (row: { versions: Model[] }) => row.versions[row.versions.length - 1]!.created_at;
  return rows.sort((a, b) => rank(a) - rank(b) || (newest(a) < newest(b) ? 1 : -1));
}

/** The version that the bare name means: the promoted one, else the newest. */
export function meant(versions: readonly Model[]): Model {
  return versions.find((one) => one.promoted) ?? versions[versions.length - 1]!;
}

/** The primary metric of the versions that were evaluated, the oldest first. */
export function history(versions: readonly Model[]): number[] {
  return versions.map((one) => value(one.metrics, primaryOf(one.type))).filter((one) => one !== null);
}
