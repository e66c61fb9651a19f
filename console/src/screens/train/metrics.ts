/** Which of a training's metrics go into which chart. */
export interface Epoch {
  epoch: number;
  seconds: number | null;
  metrics: Record<string, number | null>;
  at: string;
}

const HIDDEN = new Set(["inference_time", "epoch", "fitness", "old_classes_letterbox"]);
/** The measures that say most, the first of them that a training has is its main one. */
const MAIN = ["mask_mAP50_95", "pose_mAP50_95", "mAP50_95", "accuracy"];
const QUALITY = [...MAIN, "mask_mAP50", "pose_mAP50", "mAP50"];

export function isLoss(name: string): boolean {
  return /loss|^distill_|^consistency$/.test(name);
}

/** The names of the metrics of a history, in their order. */
export function names(history: readonly Epoch[]): string[] {
  return [...new Set(history.flatMap(({ metrics }) => Object.keys(metrics)))].filter((name) => !HIDDEN.has(name));
}

export function mainMetric(history: readonly Epoch[]): string | null {
  const known = names(history);
  return MAIN.find((name) => known.includes(name)) ?? null;
}

/** The lines of the two charts that are shown first: losses, and quality. */
export function firstCharts(history: readonly Epoch[]): { losses: string[]; quality: string[] } {
  const known = names(history);
  return {
    losses: ["loss", "val_loss"].filter((name) => known.includes(name)),
    quality: QUALITY.filter((name) => known.includes(name) && (name !== "accuracy" || !known.includes("mAP50"))).slice(0, 3),
  };
}

export function column(history: readonly Epoch[], name: string): (number | null)[] {
  return history.map(({ metrics }) => metrics[name] ?? null);
}

/** The values of a run at the epochs of a chart that shows several runs. */
export function at(history: readonly Epoch[], epochs: readonly number[], name: string): (number | null)[] {
  const found = new Map(history.map(({ epoch, metrics }) => [epoch, metrics[name] ?? null]));
  return epochs.map((epoch) => found.get(epoch) ?? null);
}

/** The epoch with the highest value of a metric; of equal ones the first. */
export function bestEpoch(history: readonly Epoch[], name: string): number | null {
  let best: Epoch | null = null;
  for (const one of history) if ((one.metrics[name] ?? -Infinity) > (best?.metrics[name] ?? -Infinity)) best = one;
  return best?.epoch ?? null;
}

/** New entries after the known ones; an epoch that was trained again replaces what came after it. */
export function merged(known: readonly Epoch[], found: readonly Epoch[]): Epoch[] {
  const first = found[0]?.epoch ?? Infinity;
  return [...known.filter(({ epoch }) => epoch < first), ...found];
}

/** A metric's value in few characters. */
export function shortly(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000 || size < 0.001) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}
