/** What the annotator edits: one object of an image, as the server's routes send and take it. */

/** x and y in pixels of the image, origin top left. */
export type Point = [number, number];
/** x1, y1, x2, y2 in pixels of the image. */
export type Box = [number, number, number, number];
export type Visibility = 0 | 1 | 2; // absent, occluded, visible: as in COCO

/** A connected part of a polygon; the first corner of a ring is not repeated at its end. */
export interface Part {
  outline: Point[];
  holes: Point[][];
}

export interface Keypoint {
  name: string;
  x: number;
  y: number;
  visibility: Visibility;
  score?: number | null;
}

/**
 * One object; without box, parts and keypoints, a class of the whole image.
 *
 * A shape is never changed in place. Each edit makes a new one, and the parts that it did not touch
 * are the same objects as before: so what nobody edits goes back to the server as it came.
 */
export interface Shape {
  id: string;
  label: string;
  box: Box | null;
  parts: Part[];
  keypoints: Keypoint[];
  source: "model" | "person";
  by: string;
  score: number | null;
  /** The confidence band of the score; the server tells it and does not store it. */
  band?: "accept" | "review" | "discard" | null;
}

export type Kind = "box" | "polygon" | "pose" | "class";

export interface Size {
  width: number;
  height: number;
}

/** A shape in the editor. `key` is unique in the image, also where the server gave no id. */
export interface Item {
  key: string;
  shape: Shape;
  /** A model's suggestion that nobody has accepted. */
  suggested: boolean;
}

export function kindOf(shape: Shape): Kind {
  if (shape.parts.length) return "polygon";
  if (shape.keypoints.length) return "pose";
  return shape.box ? "box" : "class";
}

/** The bounding box: that of the box, else of the parts, else of the keypoints that are there. */
export function boundsOf(shape: Shape): Box | null {
  if (shape.box) return shape.box;
  let points = shape.parts.flatMap((part) => part.outline);
  if (!points.length) {
    points = shape.keypoints.filter((point) => point.visibility).map((point) => [point.x, point.y]);
  }
  return around(points);
}

export function around(points: readonly Point[]): Box | null {
  if (!points.length) return null;
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    left = Math.min(left, x);
    top = Math.min(top, y);
    right = Math.max(right, x);
    bottom = Math.max(bottom, y);
  }
  return [left, top, right, bottom];
}

/** The shape as a person's: what a person drew, edited or confirmed has no score. */
export function ofPerson(shape: Shape, by: string): Shape {
  if (shape.source === "person" && shape.score === null) return shape;
  const own: Shape = { ...shape, source: "person", by, score: null };
  if (own.band) own.band = null;
  return own;
}

export function newShape(id: string, label: string, by: string, form: Partial<Shape> = {}): Shape {
  return {
    id,
    label,
    box: null,
    parts: [],
    keypoints: [],
    source: "person",
    by,
    score: null,
    ...form,
  };
}
