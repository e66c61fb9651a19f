/** What lies over the canvas as SVG: the selected shapes with their handles, and what is drawn. */

import type { Editor } from "./editor.ts";
import { HANDLES, middleOfEdge, placeOfHandle, ringAt, cornersOf } from "./geometry.ts";
import { boundsOf, type Item, type Point, type Shape } from "./shape.ts";
import { isDashed } from "./scene.ts";
import { toStage, type View } from "./view.ts";

const SIDE = 4; // half a handle's side, CSS pixels; it can be gripped from REACH away
/** CSS pixels by which a press may miss a handle: 24 pixels across, for mouse and finger alike. */
export const REACH = 12;
const MAX_OUTLINED = 60; // of more selected shapes only the bounds are drawn
const ROOM = 4 * SIDE + 12; // an edge shorter than this has no handle in its middle

/** Path data and places in CSS pixels of the stage; empty where there is nothing. */
export interface Overlay {
  outline: string;
  fill: string;
  colour: string;
  dashed: boolean;
  handles: string;
  middles: string;
  keypoints: string;
  active: Point | null;
  hover: string;
  hoverColour: string;
  draft: string;
  draftPoints: string;
  cursor: Point | null;
  cursorByKeys: boolean;
  /** The item whose label is drawn: the hovered one, else the selected one. */
  tagged: Item | null;
}

const at = (view: View, p: Point): string => {
  const [x, y] = toStage(view, p);
  return `${x.toFixed(1)} ${y.toFixed(1)}`;
};

const ringPath = (ring: readonly Point[], view: View): string =>
  ring.length ? `M${ring.map((p) => at(view, p)).join("L")}Z` : "";

export function shapePath(shape: Shape, view: View): string {
  if (shape.parts.length) {
    return shape.parts.flatMap((part) => [part.outline, ...part.holes].map((ring) => ringPath(ring, view))).join("");
  }
  return shape.box ? boundsPath(shape, view) : "";
}

function boundsPath(shape: Shape, view: View): string {
  const bounds = boundsOf(shape);
  if (!bounds) return "";
  const [x1, y1, x2, y2] = bounds;
  return ringPath([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], view);
}

const square = (view: View, p: Point, side = SIDE): string => {
  const [x, y] = toStage(view, p);
  return `M${(x - side).toFixed(1)} ${(y - side).toFixed(1)}h${2 * side}v${2 * side}h${-2 * side}Z`;
};

const circle = (view: View, p: Point, radius: number): string => {
  const [x, y] = toStage(view, p);
  return `M${(x - radius).toFixed(1)} ${y.toFixed(1)}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
};

function middles(shape: Shape, view: View): string {
  let path = "";
  for (const corner of cornersOf(shape)) {
    const ring = ringAt(shape, corner)!;
    const [a, b] = [ring[corner.index]!, ring[(corner.index + 1) % ring.length]!];
    if (Math.hypot(a[0] - b[0], a[1] - b[1]) * view.scale < ROOM) continue;
    path += circle(view, middleOfEdge(shape, corner), 3);
  }
  return path;
}

export function overlayOf(editor: Editor, view: View, colour: (label: string) => string): Overlay {
  const items = editor.selectedItems;
  const shapes = items.map((item) => editor.shapeOf(item));
  const primary = editor.primary;
  const single = items.length === 1 && primary ? editor.shapeOf(primary) : null;
  const hovered = editor.item(editor.hovered);
  const isCrowd = items.length > MAX_OUTLINED;
  const outline = shapes.map((shape) => (isCrowd ? boundsPath(shape, view) : shapePath(shape, view))).join("");
  const result: Overlay = {
    outline,
    fill: isCrowd ? "" : outline,
    colour: primary ? colour(primary.shape.label) : "",
    dashed: primary !== undefined && !editor.preview.size && isDashed(primary),
    handles: "",
    middles: "",
    keypoints: "",
    active: editor.activePlace ? toStage(view, editor.activePlace) : null,
    hover: "",
    hoverColour: "",
    draft: "",
    draftPoints: "",
    cursor: null,
    cursorByKeys: false,
    tagged: hovered ?? primary ?? null,
  };
  for (const shape of shapes) {
    for (const point of shape.keypoints) {
      if (point.visibility) result.keypoints += circle(view, [point.x, point.y], point.visibility === 2 ? 5 : 3);
    }
  }
  if (single) {
    if (single.parts.length) {
      for (const corner of cornersOf(single)) result.handles += square(view, ringAt(single, corner)![corner.index]!);
      result.middles = middles(single, view);
    } else if (single.box) {
      for (const handle of HANDLES) result.handles += square(view, placeOfHandle(single.box, handle));
    }
  }
  if (hovered && !items.includes(hovered)) {
    result.hover = shapePath(hovered.shape, view);
    result.hoverColour = colour(hovered.shape.label);
  }
  const draft = editor.draft;
  if (draft) {
    result.colour ||= colour(editor.currentClass);
    if (draft.kind === "box") {
      const [[x1, y1], [x2, y2]] = [draft.from, draft.to];
      result.draft = ringPath([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], view);
    } else {
      const line = [...draft.points, draft.cursor];
      if (draft.points.length) result.draft = `M${line.map((p) => at(view, p)).join("L")}`;
      result.draftPoints = draft.points.map((p) => square(view, p)).join("");
      result.cursor = toStage(view, draft.cursor);
      result.cursorByKeys = draft.byKeys;
    }
  }
  return result;
}
