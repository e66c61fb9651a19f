/** Points, rings and boxes: what is hit, what is nearest, and every way to change a shape. */

import { around, boundsOf, type Box, type Keypoint, type Part, type Point, type Shape, type Size } from "./shape.ts";

/** A corner of a polygon. `hole` is -1 in the outline. */
export interface Corner {
  part: number;
  hole: number;
  index: number;
}

/** A handle of a box: -1, 0 or 1 for its left, middle or right, and its top, middle or bottom. */
export interface Handle {
  x: -1 | 0 | 1;
  y: -1 | 0 | 1;
}

export const CORNERS: readonly Handle[] = [
  { x: -1, y: -1 },
  { x: 1, y: -1 },
  { x: 1, y: 1 },
  { x: -1, y: 1 },
];
export const HANDLES: readonly Handle[] = [
  ...CORNERS,
  { x: 0, y: -1 },
  { x: 1, y: 0 },
  { x: 0, y: 1 },
  { x: -1, y: 0 },
];

export const SMALLEST = 1; // pixels; a narrower box is taken for a click

/** Hundredths of a pixel: finer than any hand, and short in a file. */
export const rounded = (value: number): number => Math.round(value * 100) / 100;

export const clamp = (value: number, low: number, high: number): number =>
  Math.min(Math.max(value, low), high);

export const inside = ([x, y]: Point, size: Size): Point => [
  rounded(clamp(x, 0, size.width)),
  rounded(clamp(y, 0, size.height)),
];

export const distance = (a: Point, b: Point): number => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** The point of the line from a to b that is nearest to p. */
export function nearestOnLine(p: Point, a: Point, b: Point): Point {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length = dx * dx + dy * dy;
  const t = length ? clamp(((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length, 0, 1) : 0;
  return [a[0] + t * dx, a[1] + t * dy];
}

/** Whether a ring encloses p, by the even-odd rule. */
export function encloses(ring: readonly Point[], [x, y]: Point): boolean {
  let within = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [xi, yi] = ring[i]!;
    const [xj, yj] = ring[j]!;
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

export const inBox = (box: Box, [x, y]: Point, margin = 0): boolean =>
  x >= box[0] - margin && x <= box[2] + margin && y >= box[1] - margin && y <= box[3] + margin;

export const areaOf = (box: Box): number => (box[2] - box[0]) * (box[3] - box[1]);

/** The share of two boxes' common area in their whole area. */
export function overlap(a: Box, b: Box): number {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const common = Math.max(width, 0) * Math.max(height, 0);
  return common ? common / (areaOf(a) + areaOf(b) - common) : 0;
}

const SAME = 0.8; // overlap from which a suggestion and an object of its class are one thing

/** Whether a suggestion says what an object says already. */
export function coincide(a: Shape, b: Shape): boolean {
  if (a.label !== b.label) return false;
  const [one, other] = [boundsOf(a), boundsOf(b)];
  return one && other ? overlap(one, other) >= SAME : one === other;
}

const rings = (part: Part): Point[][] => [part.outline, ...part.holes];

/** How p lies to a shape: on its line (within `reach`), inside it, or neither. */
export function hit(shape: Shape, p: Point, reach: number): "line" | "inside" | null {
  const bounds = boundsOf(shape);
  if (!bounds) return null;
  const margin = Math.max(reach, 0);
  if (!inBox(bounds, p, margin)) {
    return shape.keypoints.some((k) => k.visibility && distance([k.x, k.y], p) <= reach) ? "line" : null;
  }
  if (shape.parts.length) {
    for (const part of shape.parts) {
      for (const ring of rings(part)) {
        for (let i = 0; i < ring.length; i++) {
          const [a, b] = [ring[i]!, ring[(i + 1) % ring.length]!];
          if (distance(nearestOnLine(p, a, b), p) <= reach) return "line";
        }
      }
    }
    const within = shape.parts.some(
      (part) => encloses(part.outline, p) && !part.holes.some((hole) => encloses(hole, p)),
    );
    return within ? "inside" : null;
  }
  const near =
    Math.abs(p[0] - bounds[0]) <= reach ||
    Math.abs(p[0] - bounds[2]) <= reach ||
    Math.abs(p[1] - bounds[1]) <= reach ||
    Math.abs(p[1] - bounds[3]) <= reach;
  return near ? "line" : inBox(bounds, p) ? "inside" : null;
}

/** The shape that a click at p means: one whose line is there, else the smallest around it. */
export function shapeAt<T extends { shape: Shape }>(items: readonly T[], p: Point, reach: number): T | null {
  let best: T | null = null;
  let least = Infinity;
  for (const item of items) {
    const found = hit(item.shape, p, reach);
    if (!found) continue;
    const area = areaOf(boundsOf(item.shape)!);
    const rank = found === "line" ? area - 1e12 : area;
    // Of equals the later one: it is drawn on top.
    if (rank <= least) [best, least] = [item, rank];
  }
  return best;
}

export const ringAt = (shape: Shape, corner: Corner): Point[] | undefined => {
  const part = shape.parts[corner.part];
  return corner.hole < 0 ? part?.outline : part?.holes[corner.hole];
};

/** All corners of all rings, in the order in which V goes through them. */
export function cornersOf(shape: Shape): Corner[] {
  return shape.parts.flatMap((part, p) =>
    rings(part).flatMap((ring, r) => ring.map((_, index) => ({ part: p, hole: r - 1, index }))),
  );
}

export const placeOf = (shape: Shape, corner: Corner): Point | undefined =>
  ringAt(shape, corner)?.[corner.index];

export function nearestCorner(shape: Shape, p: Point): { corner: Corner; distance: number } | null {
  let best: { corner: Corner; distance: number } | null = null;
  for (const corner of cornersOf(shape)) {
    const away = distance(placeOf(shape, corner)!, p);
    if (!best || away < best.distance) best = { corner, distance: away };
  }
  return best;
}

/** The edge nearest to p: the corner it starts at, and its point nearest to p. */
export function nearestEdge(shape: Shape, p: Point): { corner: Corner; point: Point; distance: number } | null {
  let best: { corner: Corner; point: Point; distance: number } | null = null;
  for (const corner of cornersOf(shape)) {
    const ring = ringAt(shape, corner)!;
    const point = nearestOnLine(p, ring[corner.index]!, ring[(corner.index + 1) % ring.length]!);
    const away = distance(point, p);
    if (!best || away < best.distance) best = { corner, point, distance: away };
  }
  return best;
}

export function middleOfEdge(shape: Shape, corner: Corner): Point {
  const ring = ringAt(shape, corner)!;
  const [a, b] = [ring[corner.index]!, ring[(corner.index + 1) % ring.length]!];
  return [rounded((a[0] + b[0]) / 2), rounded((a[1] + b[1]) / 2)];
}

/** The shape with another ring in place of one. A box that it has beside its parts follows them. */
function withRing(shape: Shape, corner: Corner, ring: Point[]): Shape {
  const parts = shape.parts.map((part, index) => {
    if (index !== corner.part) return part;
    if (corner.hole < 0) return { ...part, outline: ring };
    return { ...part, holes: part.holes.map((hole, h) => (h === corner.hole ? ring : hole)) };
  });
  return followed({ ...shape, parts });
}

const followed = (shape: Shape): Shape =>
  shape.box && shape.parts.length
    ? { ...shape, box: around(shape.parts.flatMap((part) => part.outline)) }
    : shape;

export function moveCorner(shape: Shape, corner: Corner, to: Point, size: Size): Shape {
  const ring = ringAt(shape, corner)!.slice();
  ring[corner.index] = inside(to, size);
  return withRing(shape, corner, ring);
}

/** Insert a corner behind `corner`: the answer is the shape and the new corner. */
export function insertCorner(shape: Shape, corner: Corner, at: Point, size: Size): [Shape, Corner] {
  const ring = ringAt(shape, corner)!.slice();
  ring.splice(corner.index + 1, 0, inside(at, size));
  return [withRing(shape, corner, ring), { ...corner, index: corner.index + 1 }];
}

/**
 * Delete a corner. A ring that would have two corners goes as a whole: a hole is filled, a part is
 * deleted. The last part has no smaller form: null.
 */
export function deleteCorner(shape: Shape, corner: Corner): [Shape, Corner] | null {
  const ring = ringAt(shape, corner)!;
  if (ring.length > 3) {
    const index = corner.index % (ring.length - 1);
    return [withRing(shape, corner, ring.filter((_, i) => i !== corner.index)), { ...corner, index }];
  }
  const first = { part: 0, hole: -1, index: 0 };
  if (corner.hole >= 0) {
    const parts = shape.parts.map((part, index) =>
      index === corner.part ? { ...part, holes: part.holes.filter((_, h) => h !== corner.hole) } : part,
    );
    return [{ ...shape, parts }, { ...first, part: corner.part }];
  }
  if (shape.parts.length < 2) return null;
  return [followed({ ...shape, parts: shape.parts.filter((_, index) => index !== corner.part) }), first];
}

/** A new shape from each point of a shape; absent keypoints have no place and stay. */
export function mapped(shape: Shape, to: (p: Point) => Point): Shape {
  const box = shape.box && around([to([shape.box[0], shape.box[1]]), to([shape.box[2], shape.box[3]])]);
  return {
    ...shape,
    box,
    parts: shape.parts.map((part) => ({ outline: part.outline.map(to), holes: part.holes.map((h) => h.map(to)) })),
    keypoints: shape.keypoints.map((point) => {
      if (!point.visibility) return point;
      const [x, y] = to([point.x, point.y]);
      return { ...point, x, y };
    }),
  };
}

/** The whole extent: also of keypoints outside of the box, for what must stay in the image. */
export function extentOf(shape: Shape): Box | null {
  const bounds = boundsOf(shape);
  if (!bounds) return null;
  const points: Point[] = [[bounds[0], bounds[1]], [bounds[2], bounds[3]]];
  for (const point of shape.keypoints) if (point.visibility) points.push([point.x, point.y]);
  return around(points);
}

/** The part of a shift along one axis that keeps low…high within 0…end, or takes it no further out. */
function allowed(shift: number, low: number, high: number, end: number): number {
  return shift < 0 ? Math.min(0, Math.max(shift, -low)) : Math.max(0, Math.min(shift, end - high));
}

/** Move shapes together, as far as they all stay in the image. */
export function moveShapes(shapes: readonly Shape[], by: Point, size: Size): Shape[] {
  let [dx, dy] = by;
  for (const shape of shapes) {
    const extent = extentOf(shape);
    if (!extent) continue;
    dx = allowed(dx, extent[0], extent[2], size.width);
    dy = allowed(dy, extent[1], extent[3], size.height);
  }
  if (!dx && !dy) return [...shapes];
  return shapes.map((shape) => mapped(shape, ([x, y]) => [rounded(x + dx), rounded(y + dy)]));
}

export function placeOfHandle(box: Box, handle: Handle): Point {
  const at = (side: number, low: number, high: number) => (side < 0 ? low : side > 0 ? high : (low + high) / 2);
  return [at(handle.x, box[0], box[2]), at(handle.y, box[1], box[3])];
}

/** The box with a handle dragged to a place; dragged over the opposite side, it turns over. */
export function resizeBox(box: Box, handle: Handle, to: Point, size: Size): Box {
  const [x, y] = inside(to, size);
  const side = (at: number, low: number, high: number, sign: number): [number, number] => {
    if (!sign) return [low, high];
    const fixed = sign < 0 ? high : low;
    return at < fixed ? [at, fixed] : [fixed, at];
  };
  const [left, right] = side(x, box[0], box[2], handle.x);
  const [top, bottom] = side(y, box[1], box[3], handle.y);
  return [left, top, right, bottom];
}

/** Scale a shape so that its bounds become `to`. */
export function scaled(shape: Shape, to: Box, size: Size): Shape {
  const from = boundsOf(shape);
  if (!from) return shape;
  const along = (v: number, a: number, b: number, c: number, d: number) =>
    b > a ? c + ((v - a) * (d - c)) / (b - a) : v + c - a;
  return mapped(shape, ([x, y]) =>
    inside([along(x, from[0], from[2], to[0], to[2]), along(y, from[1], from[3], to[1], to[3])], size),
  );
}

/** Grow or shrink at the right and bottom; at least a pixel remains. */
export function resizeShape(shape: Shape, by: Point, size: Size): Shape {
  const box = boundsOf(shape);
  if (!box) return shape;
  const right = clamp(box[2] + by[0], Math.min(box[0] + SMALLEST, size.width), Math.max(size.width, box[2]));
  const bottom = clamp(box[3] + by[1], Math.min(box[1] + SMALLEST, size.height), Math.max(size.height, box[3]));
  if (!shape.parts.length && shape.box) {
    // The keypoints stay where they are: the box is drawn around them, they are not drawn in it.
    return { ...shape, box: [box[0], box[1], rounded(right), rounded(bottom)] };
  }
  return scaled(shape, [box[0], box[1], right, bottom], size);
}

const turn = (a: Point, b: Point, c: Point): number =>
  Math.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]));

/** Whether two lines cross at a point that is no end of either. */
export const cross = (a: Point, b: Point, c: Point, d: Point): boolean =>
  turn(a, b, c) * turn(a, b, d) < 0 && turn(c, d, a) * turn(c, d, b) < 0;

/** Whether a ring crosses itself. It is told, not forbidden: a hand needs it on the way. */
export function crossesItself(ring: readonly Point[]): boolean {
  const count = ring.length;
  for (let i = 0; i < count; i++) {
    const [a, b] = [ring[i]!, ring[(i + 1) % count]!];
    const [left, right] = [Math.min(a[0], b[0]), Math.max(a[0], b[0])];
    for (let j = i + 2; j < count; j++) {
      const [c, d] = [ring[j]!, ring[(j + 1) % count]!];
      if ((c[0] < left && d[0] < left) || (c[0] > right && d[0] > right)) continue;
      if (cross(a, b, c, d)) return true;
    }
  }
  return false;
}

const crossings = new WeakMap<Shape, boolean>();

/** Whether a ring of the shape crosses itself. */
export function isCrossed(shape: Shape): boolean {
  let crossed = crossings.get(shape);
  if (crossed === undefined) {
    crossed = shape.parts.some((part) => rings(part).some(crossesItself));
    crossings.set(shape, crossed);
  }
  return crossed;
}

/** A new polygon without a mouse: eight corners on an oval in a box. */
export function oval(box: Box, corners = 8): Point[] {
  const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
  const [a, b] = [(box[2] - box[0]) / 2, (box[3] - box[1]) / 2];
  return Array.from({ length: corners }, (_, i) => {
    const angle = (2 * Math.PI * i) / corners;
    return [rounded(x + a * Math.cos(angle)), rounded(y + b * Math.sin(angle))];
  });
}

/** The keypoints of a skeleton in its order, the missing ones as absent; unknown ones follow. */
export function skeleton(keypoints: readonly Keypoint[], names: readonly string[]): Keypoint[] {
  const byName = new Map(keypoints.map((point) => [point.name, point]));
  const known = names.map((name) => byName.get(name) ?? { name, x: 0, y: 0, visibility: 0 as const });
  return [...known, ...keypoints.filter((point) => !names.includes(point.name))];
}

export function setKeypoint(shape: Shape, index: number, change: Partial<Keypoint>): Shape {
  const keypoints = shape.keypoints.map((point, i) => {
    if (i !== index) return point;
    const next = { ...point, ...change };
    if ("score" in next) next.score = null; // a person's
    return next.visibility ? next : { ...next, x: 0, y: 0 };
  });
  return { ...shape, keypoints };
}
