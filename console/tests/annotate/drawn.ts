/** Shapes for the annotator's tests. */

import { Clipboard } from "../../src/screens/annotate/engine/clipboard.ts";
import { Editor, type Notice, type Settings, type Start } from "../../src/screens/annotate/engine/editor.ts";
import { newShape, type Box, type Point, type Shape } from "../../src/screens/annotate/engine/shape.ts";

export const SIZE = { width: 200, height: 100 };
export const NAMES = ["car", "person", "dog"];
export const REACH = { reach: 4 };

let ids = 0;

export const box = (label: string, ...corners: Box): Shape =>
  newShape(`b${++ids}`, label, "ann", { box: corners });

export const polygon = (label: string, outline: Point[], holes: Point[][] = []): Shape =>
  newShape(`p${++ids}`, label, "ann", { parts: [{ outline, holes }] });

export const suggested = (shape: Shape, score: number): Shape => ({ ...shape, source: "model", by: "signs:1", score });

export const SQUARE: Point[] = [[50, 20], [90, 20], [90, 60], [50, 60]];
export const HOLE: Point[] = [[60, 30], [70, 30], [70, 40], [60, 40]];

export interface Heard {
  editor: Editor;
  notices: Notice[];
  /** What the last notices were, newest last. */
  said: () => string[];
}

export function opened(start: Partial<Start> = {}, settings: Partial<Settings> = {}): Heard {
  let made = 0;
  const editor = new Editor(
    { ...SIZE, classes: NAMES, keypointNames: [], task: "detect", objects: [], suggestions: [], ...start },
    { by: "ann", newId: () => `new${++made}`, clipboard: new Clipboard(), ...settings },
  );
  const notices: Notice[] = [];
  editor.onNotice((notice) => notices.push(notice));
  return { editor, notices, said: () => notices.map((notice) => notice.what) };
}

/** Press, move in two strides and release, as a mouse does. */
export function drag(editor: Editor, from: Point, to: Point): void {
  editor.press(from, REACH);
  editor.move([(from[0] + to[0]) / 2, (from[1] + to[1]) / 2], 1);
  editor.move(to, 1);
  editor.release(to, REACH);
}

export function click(editor: Editor, p: Point, options = {}): void {
  editor.move(p, 1);
  if (editor.press(p, { ...REACH, ...options }) === "pan") editor.clickNothing();
  editor.release(p, REACH);
}

/** A generator of the same numbers each time (mulberry32), 0 to 1. */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
