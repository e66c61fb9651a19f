/** One image through a model. */
import { sendForm, type Schemas } from "../../api";

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

/**
 * Predict `image` with a model. Throws ApiError or Unreachable.
 *
 * `drawn`: the server draws what it finds from this confidence on, for browsers that cannot show the image.
 */
export async function predict(image: File, model: string, drawn: number | null, signal: AbortSignal): Promise<Tried> {
  const form = new FormData();
  form.append("image", image, image.name || "image");
  form.append("model_id", model);
  form.append("confidence", String(drawn ?? LOWEST));
  form.append("draw_boxes", String(drawn !== null));
  form.append("max_det", String(MOST));
  const began = performance.now();
  const answer = await sendForm<Answer>("/infer", form, { signal });
  return { answer, total: performance.now() - began };
}
