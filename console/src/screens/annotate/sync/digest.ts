/** A digest of what a draft holds, to know one's own work again. */
import type { Shape } from "../engine/shape.ts";
import type { DraftState } from "./types.ts";

/** FNV-1a of two halves, 64 bits: no secret, only unlikely to be alike by chance. */
export function digestOf(objects: readonly Shape[], state: DraftState): string {
  const text = JSON.stringify([state, objects.map(plain)]);
  let low = 0x811c9dc5;
  let high = 0x01000193;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code, 0x85ebca6b);
  }
  return (low >>> 0).toString(16).padStart(8, "0") + (high >>> 0).toString(16).padStart(8, "0");
}

/** What a person sees of a shape, in one order of its fields. */
function plain(shape: Shape): unknown[] {
  return [
    shape.id,
    shape.label,
    shape.box,
    shape.parts.map((part) => [part.outline, part.holes]),
    shape.keypoints.map((point) => [point.name, point.x, point.y, point.visibility]),
  ];
}

/** A shape as the server takes it: fields that it does not know are left out. */
export function sendable(shape: Shape): Shape {
  return {
    id: shape.id,
    label: shape.label,
    box: shape.box,
    parts: shape.parts.map((part) => ({ outline: part.outline, holes: part.holes })),
    keypoints: shape.keypoints.map(({ name, x, y, visibility }) => ({ name, x, y, visibility })),
    source: shape.source,
    by: shape.by,
    score: shape.score,
    band: shape.band ?? null,
  };
}
