/** Where the image lies on the stage: zoom about a point, pan, fit. Lengths are CSS pixels. */

import { clamp } from "./geometry.ts";
import type { Box, Point, Size } from "./shape.ts";

/** A point p of the image is at p × scale + (x, y) on the stage. */
export interface View {
  scale: number;
  x: number;
  y: number;
}

export const MAX_SCALE = 64;
const KEPT = 48; // pixels of the image that stay on the stage, however far it is dragged

export const toStage = (view: View, [x, y]: Point): Point => [x * view.scale + view.x, y * view.scale + view.y];

export const toImage = (view: View, [x, y]: Point): Point => [(x - view.x) / view.scale, (y - view.y) / view.scale];

/** The whole image in the middle of the stage; a small one is enlarged up to eight times. */
export function fit(image: Size, stage: Size, margin = 16): View {
  const room = { width: Math.max(stage.width - 2 * margin, 1), height: Math.max(stage.height - 2 * margin, 1) };
  const scale = Math.min(room.width / image.width, room.height / image.height, 8);
  return centred(image, stage, scale);
}

export function centred(image: Size, stage: Size, scale: number): View {
  return {
    scale,
    x: (stage.width - image.width * scale) / 2,
    y: (stage.height - image.height * scale) / 2,
  };
}

export const smallestScale = (image: Size, stage: Size): number => Math.min(fit(image, stage).scale / 2, 1);

/** Zoom by a factor; the point of the image under `at` stays there. */
export function zoomAt(view: View, at: Point, factor: number, image: Size, stage: Size): View {
  const scale = clamp(view.scale * factor, smallestScale(image, stage), MAX_SCALE);
  const ratio = scale / view.scale;
  return kept({ scale, x: at[0] - (at[0] - view.x) * ratio, y: at[1] - (at[1] - view.y) * ratio }, image, stage);
}

export const pan = (view: View, by: Point, image: Size, stage: Size): View =>
  kept({ ...view, x: view.x + by[0], y: view.y + by[1] }, image, stage);

/** The view, with a strip of the image on the stage: an image cannot be lost. */
function kept(view: View, image: Size, stage: Size): View {
  const along = (at: number, length: number, room: number) => {
    const strip = Math.min(KEPT, length, room);
    return clamp(at, strip - length, room - strip);
  };
  return {
    scale: view.scale,
    x: along(view.x, image.width * view.scale, stage.width),
    y: along(view.y, image.height * view.scale, stage.height),
  };
}

/** The view moved as little as needed to show a box of the image; zoomed out if it is too big. */
export function reveal(view: View, box: Box, image: Size, stage: Size, margin = 24): View {
  const width = (box[2] - box[0]) * view.scale + 2 * margin;
  const height = (box[3] - box[1]) * view.scale + 2 * margin;
  const factor = Math.min(1, stage.width / width, stage.height / height);
  const middle: Point = [stage.width / 2, stage.height / 2];
  const zoomed = factor < 1 ? zoomAt(view, middle, factor, image, stage) : view;
  const [left, top] = toStage(zoomed, [box[0], box[1]]);
  const [right, bottom] = toStage(zoomed, [box[2], box[3]]);
  const along = (low: number, high: number, room: number) =>
    low < margin ? margin - low : high > room - margin ? Math.max(room - margin - high, margin - low) : 0;
  const by: Point = [along(left, right, stage.width), along(top, bottom, stage.height)];
  return by[0] || by[1] ? pan(zoomed, by, image, stage) : zoomed;
}

/** The part of the image that is on the stage. */
export function shown(view: View, stage: Size): Box {
  const [left, top] = toImage(view, [0, 0]);
  const [right, bottom] = toImage(view, [stage.width, stage.height]);
  return [left, top, right, bottom];
}

/** The size of a canvas's pixels that fills the stage sharply. */
export const canvasSize = (stage: Size, ratio: number): Size => ({
  width: Math.max(1, Math.round(stage.width * ratio)),
  height: Math.max(1, Math.round(stage.height * ratio)),
});
