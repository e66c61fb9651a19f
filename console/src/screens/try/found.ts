/** What is shown of a model's predictions. */
import { classColour, nameColour } from "../../colours.ts";
import type { StageObject } from "../../components/ImageStage";
import type { Model, Prediction } from "./predict";

const TOP = 5;

/** The predictions of at least this confidence, the surest first; of a classifier, the top five at least. */
export function above(predictions: readonly Prediction[], threshold: number): Prediction[] {
  const sorted = [...predictions].sort((a, b) => b.confidence - a.confidence);
  return sorted.filter((one, at) => one.confidence >= threshold || (!one.bounding_box && at < TOP));
}

/** A colour for each class of the models, the same in all of them. */
export function colours(models: readonly (Pick<Model, "classes"> | undefined)[]): (label: string) => string {
  const names = [...new Set(models.flatMap((one) => one?.classes ?? []))];
  const places = new Map(names.map((name, at) => [name, at]));
  return (label) => {
    const at = places.get(label);
    return at === undefined ? nameColour(label) : classColour(at);
  };
}

/** Class → number and highest confidence, by number. */
export function byClass(predictions: readonly Prediction[]): { label: string; count: number; best: number }[] {
  const found = new Map<string, { label: string; count: number; best: number }>();
  for (const { label, confidence } of predictions) {
    const row = found.get(label) ?? { label, count: 0, best: 0 };
    found.set(label, { label, count: row.count + 1, best: Math.max(row.best, confidence) });
  }
  return [...found.values()].sort((a, b) => b.count - a.count || b.best - a.best);
}

const SEEN = 0.5; // confidence from which a keypoint counts as visible, as elsewhere

/** A prediction as the stage draws it; null: a class of the whole image has no place in it. */
export function drawable(one: Prediction, colour: string): StageObject | null {
  const box = one.bounding_box;
  if (!box) return null;
  return {
    label: one.label,
    score: one.confidence,
    box: [box.x1, box.y1, box.x2, box.y2],
    rings: one.polygon ? [one.polygon as [number, number][]] : undefined,
    points: one.keypoints?.map((point) => ({ x: point.x, y: point.y, visible: point.confidence >= SEEN })),
    source: "model",
    colour,
  };
}
