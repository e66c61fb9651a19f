/** One image through a model, and what is drawn of the answer. */
import { sendForm, type Schemas } from "../../api";
import { classColour, nameColour } from "../../colours";
import type { StageObject } from "../../components/ImageStage";

export type Answer = Schemas["InferAnswer"];
export type Prediction = Answer["predictions"][number];
export type Model = Schemas["Model"];

/** All that the page may show is asked for at once: the threshold is applied in the browser. */
export const LOWEST = 0.01;
export const MOST = 300;

export interface Tried {
  answer: Answer;
  /** Milliseconds from the sending of the request to its answer, as the page saw them. */
  total: number;
}

/** Predict `image` with a model. Throws ApiError or Unreachable. */
export async function predict(image: Blob, name: string, model: string, signal: AbortSignal): Promise<Tried> {
  const form = new FormData();
  form.append("image", image, name);
  form.append("model_id", model);
  form.append("confidence", String(LOWEST));
  form.append("max_det", String(MOST));
  const began = performance.now();
  const answer = await sendForm<Answer>("/infer", form, { signal });
  return { answer, total: performance.now() - began };
}

const TOP = 5;

/** The predictions of at least this confidence, the surest first; of a classifier, the top five at least. */
export function above(predictions: readonly Prediction[], threshold: number): Prediction[] {
  const sorted = [...predictions].sort((a, b) => b.confidence - a.confidence);
  return sorted.filter((one, at) => one.confidence >= threshold || (!one.bounding_box && at < TOP));
}

/** A colour for each class of the models, the same in all of them. */
export function colours(models: readonly (Model | undefined)[]): (label: string) => string {
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

export interface Call {
  url: string;
  model: string;
  confidence: number;
  token: boolean;
  file: string;
}

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The call as a shell command. */
export function curl({ url, model, confidence, token, file }: Call): string {
  const lines = ["curl -s"];
  if (token) lines.push(`-H "Authorization: Bearer $VISIONLOOP_TOKEN"`);
  lines.push(`-F image=@${quoted(file)}`, `-F model_id=${quoted(model)}`, `-F confidence=${confidence}`, quoted(`${url}/infer`));
  return lines.join(" \\\n  ");
}

/** The call in Python, with httpx. */
export function python({ url, model, confidence, token, file }: Call): string {
  const text = JSON.stringify;
  return [
    ...(token ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${text(file)}, "rb") as image:`,
    "    answer = httpx.post(",
    `        ${text(`${url}/infer`)},`,
    ...(token ? [`        headers={"Authorization": f"Bearer {os.environ['VISIONLOOP_TOKEN']}"},`] : []),
    '        files={"image": image},',
    `        data={`,
    `            "model_id": ${text(model)},`,
    `            "confidence": ${confidence},`,
    "        },",
    "        timeout=60,",
    "    )",
    "answer.raise_for_status()",
    'for found in answer.json()["predictions"]:',
    '    print(found["label"], found["confidence"], found.get("bounding_box"))',
  ].join("\n");
}
