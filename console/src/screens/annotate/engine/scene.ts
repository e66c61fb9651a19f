/** Draws all shapes on one canvas. The selected ones are in the overlay, see overlay.ts. */

import { around, boundsOf, kindOf, type Box, type Item, type Point, type Shape, type Size } from "./shape.ts";
import { shown, toStage, type View } from "./view.ts";

export const MAX_LABELLED = 60; // above this number of shapes only the hovered one has its label
const MAX_FILLED = 300; // above it polygons are not filled: it costs the most time
export const CASING = "rgba(8, 10, 13, 0.85)"; // the dark line beneath each coloured one
const LINE = 2;
const HALO = 4;
const DASH = [6, 4];
const FONT = '12px system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif';
const TAG = 18; // height of a label in CSS pixels

export interface Scene {
  items: readonly Item[];
  /** Keys of the items that are drawn elsewhere. */
  skip: ReadonlySet<string>;
  view: View;
  stage: Size;
  /** Device pixels for each CSS pixel. */
  ratio: number;
  colour: (label: string) => string;
  /** CSS pixels at each side of the canvas that are not seen: labels stay within the rest. */
  edge: number;
}

// Shapes never change, so the path of one is made once.
const paths = new WeakMap<Shape, Path2D>();

/** The outline of a shape in pixels of the image. */
export function pathOf(shape: Shape): Path2D {
  let path = paths.get(shape);
  if (!path) {
    path = new Path2D();
    for (const part of shape.parts) for (const ring of [part.outline, ...part.holes]) addRing(path, ring);
    if (shape.box && !shape.parts.length) {
      const [x1, y1, x2, y2] = shape.box;
      path.rect(x1, y1, x2 - x1, y2 - y1);
    }
    paths.set(shape, path);
  }
  return path;
}

function addRing(path: Path2D, ring: readonly Point[]): void {
  ring.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
  path.closePath();
}

/** Whether a box of the image is in view; `around` are the bounds of the view, with a margin. */
const overlaps = (box: Box, around: Box): boolean =>
  box[0] <= around[2] && box[2] >= around[0] && box[1] <= around[3] && box[3] >= around[1];

/** The items whose bounds are in view, or in a part of it, and that this canvas draws. */
export function inView(scene: Pick<Scene, "items" | "skip" | "view" | "stage">, part?: Box): Item[] {
  const [left, top, right, bottom] = part ?? shown(scene.view, scene.stage);
  const margin = TAG / scene.view.scale;
  const around: Box = [left - margin, top - margin, right + margin, bottom + margin];
  return scene.items.filter((item) => {
    if (scene.skip.has(item.key)) return false;
    const bounds = boundsOf(item.shape);
    return bounds !== null && overlaps(bounds, around);
  });
}

export const isDashed = (item: Item): boolean => item.suggested || item.shape.source === "model";

/** What stands beside a shape: its class, and the model's score. */
export function tagOf(shape: Shape): string {
  return shape.score === null ? shape.label : `${shape.label} ${Math.round(shape.score * 100)} %`;
}

/**
 * What has to be painted anew when a scene was painted with other items, in pixels of the image.
 *
 * @returns null if nothing has
 */
export function changedPart(items: readonly Item[], skip: ReadonlySet<string>, before: readonly Item[], skipped: ReadonlySet<string>): Box | null {
  const drawn = (list: readonly Item[], left: ReadonlySet<string>) => list.filter((item) => !left.has(item.key));
  const [now, then] = [new Set(drawn(items, skip)), new Set(drawn(before, skipped))];
  let part: Box | null = null;
  const add = (item: Item) => {
    const bounds = boundsOf(item.shape);
    if (!bounds) return;
    const points = item.shape.keypoints.filter((point) => point.visibility).map((point): Point => [point.x, point.y]);
    const corners: Point[] = [[bounds[0], bounds[1]], [bounds[2], bounds[3]], ...points];
    part = around(part ? [[part[0], part[1]], [part[2], part[3]], ...corners] : corners);
  };
  for (const item of now) if (!then.has(item)) add(item);
  for (const item of then) if (!now.has(item)) add(item);
  return part;
}

/** Paint a scene, or only a part of it that changed, in pixels of the image. */
export function paint(ctx: CanvasRenderingContext2D, scene: Scene, part?: Box): void {
  ctx.save();
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  if (part) {
    const place = (at: number, offset: number) => (at * scene.view.scale + offset) * scene.ratio;
    const wide = HALO * 2 * scene.ratio; // lines and keypoints reach beyond the bounds
    const left = Math.floor(place(part[0], scene.view.x) - wide);
    const top = Math.floor(place(part[1], scene.view.y) - wide);
    const [right, bottom] = [place(part[2], scene.view.x) + wide, place(part[3], scene.view.y) + wide];
    ctx.beginPath();
    ctx.rect(left, top, Math.ceil(right) - left, Math.ceil(bottom) - top);
    ctx.clip();
  }
  ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height);
  paintItems(ctx, scene, inView(scene, part));
  ctx.restore();
}

function paintItems(ctx: CanvasRenderingContext2D, scene: Scene, items: readonly Item[]): void {
  const { view, ratio, colour } = scene;
  const scale = view.scale * ratio;
  ctx.setTransform(scale, 0, 0, scale, view.x * ratio, view.y * ratio);
  ctx.lineJoin = "bevel";
  const crowd = scene.items.length;
  if (crowd <= MAX_FILLED) {
    ctx.globalAlpha = 0.16;
    for (const { shape } of items) {
      if (!shape.parts.length) continue;
      ctx.fillStyle = colour(shape.label);
      ctx.fill(pathOf(shape), "evenodd");
    }
    ctx.globalAlpha = 1;
  }
  ctx.lineWidth = HALO / view.scale;
  ctx.strokeStyle = CASING;
  for (const { shape } of items) stroke(ctx, shape);
  ctx.lineWidth = LINE / view.scale;
  let dashed = false;
  for (const item of items) {
    if (isDashed(item) !== dashed) {
      dashed = !dashed;
      ctx.setLineDash(dashed ? DASH.map((length) => length / view.scale) : []);
    }
    ctx.strokeStyle = colour(item.shape.label);
    stroke(ctx, item.shape);
  }
  ctx.setLineDash([]);
  for (const { shape } of items) if (shape.keypoints.length) paintKeypoints(ctx, shape, view, colour(shape.label));
  if (crowd > MAX_LABELLED) return;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const item of items) paintTag(ctx, item.shape, scene);
}

function stroke(ctx: CanvasRenderingContext2D, shape: Shape): void {
  if (shape.parts.length) ctx.stroke(pathOf(shape));
  else if (shape.box) ctx.strokeRect(shape.box[0], shape.box[1], shape.box[2] - shape.box[0], shape.box[3] - shape.box[1]);
}

function paintKeypoints(ctx: CanvasRenderingContext2D, shape: Shape, view: View, colour: string): void {
  for (const point of shape.keypoints) {
    if (!point.visibility) continue;
    ctx.beginPath();
    ctx.arc(point.x, point.y, 4 / view.scale, 0, 2 * Math.PI);
    ctx.lineWidth = 2 / view.scale;
    // An occluded one is hollow.
    ctx.fillStyle = point.visibility === 2 ? colour : CASING;
    ctx.strokeStyle = point.visibility === 2 ? CASING : colour;
    ctx.fill();
    ctx.stroke();
  }
}

const widths = new Map<string, number>();

/** The label of a shape above its top left corner, or within it at the stage's top. */
function paintTag(ctx: CanvasRenderingContext2D, shape: Shape, { view, stage, edge, colour }: Scene): void {
  const bounds = boundsOf(shape);
  if (!bounds || kindOf(shape) === "class") return;
  const text = tagOf(shape);
  ctx.font = FONT;
  let width = widths.get(text);
  if (width === undefined) widths.set(text, (width = ctx.measureText(text).width));
  const [x, y] = toStage(view, [bounds[0], bounds[1]]);
  const left = Math.min(Math.max(x - 1, edge), Math.max(stage.width - edge - width - 8, edge));
  const top = y - TAG < edge ? Math.max(y, edge) : y - TAG;
  ctx.fillStyle = colour(shape.label);
  ctx.fillRect(left, top, width + 8, TAG);
  ctx.fillStyle = "#0b0d10";
  ctx.textBaseline = "middle";
  ctx.fillText(text, left + 4, top + TAG / 2 + 0.5);
}
