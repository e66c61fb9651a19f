/** Which key does what. The help lists this table, so it cannot leave one out. */

export type Command =
  | "next"
  | "previous"
  | "point"
  | "point-back"
  | "insert"
  | "box"
  | "polygon"
  | "keypoint"
  | "visibility"
  | "nudge"
  | "resize"
  | "delete"
  | "class"
  | "class-more"
  | "class-search"
  | "undo"
  | "redo"
  | "copy"
  | "paste"
  | "paste-previous"
  | "duplicate"
  | "select-all"
  | "accept"
  | "accept-shown"
  | "confirm"
  | "skip"
  | "nothing-here"
  | "suggestions"
  | "threshold"
  | "fit"
  | "actual"
  | "zoom-in"
  | "zoom-out"
  | "zoom-object"
  | "save"
  | "cancel"
  | "help";

export type Group = "image" | "objects" | "draw" | "points" | "edit" | "suggestions" | "view";

export interface Binding {
  command: Command | "box-middle" | "polygon-middle" | "pan" | "place";
  /** As the help shows it; the parts are keys to press together, a space is "then". */
  keys: string[];
  group: Group;
}

export const BINDINGS: readonly Binding[] = [
  { command: "confirm", keys: ["Enter"], group: "image" },
  { command: "skip", keys: ["S"], group: "image" },
  { command: "nothing-here", keys: ["N"], group: "image" },
  { command: "save", keys: ["Ctrl+S"], group: "image" },
  { command: "next", keys: ["J"], group: "objects" },
  { command: "previous", keys: ["K"], group: "objects" },
  { command: "select-all", keys: ["Ctrl+A"], group: "objects" },
  { command: "class", keys: ["1 … 9"], group: "objects" },
  { command: "class-more", keys: ["Shift+1 … 9"], group: "objects" },
  { command: "class-search", keys: ["C"], group: "objects" },
  { command: "box", keys: ["B"], group: "draw" },
  { command: "box-middle", keys: ["B B"], group: "draw" },
  { command: "polygon", keys: ["P"], group: "draw" },
  { command: "place", keys: ["I", "Space"], group: "draw" },
  { command: "polygon-middle", keys: ["P P"], group: "draw" },
  { command: "keypoint", keys: ["M"], group: "draw" },
  { command: "visibility", keys: ["O"], group: "draw" },
  { command: "point", keys: ["V"], group: "points" },
  { command: "point-back", keys: ["Shift+V"], group: "points" },
  { command: "insert", keys: ["I"], group: "points" },
  { command: "nudge", keys: ["Arrows", "Shift+Arrows"], group: "edit" },
  { command: "resize", keys: ["Alt+Arrows", "Alt+Shift+Arrows"], group: "edit" },
  { command: "delete", keys: ["Delete", "Backspace"], group: "edit" },
  { command: "undo", keys: ["Ctrl+Z"], group: "edit" },
  { command: "redo", keys: ["Ctrl+Shift+Z", "Ctrl+Y"], group: "edit" },
  { command: "copy", keys: ["Ctrl+C"], group: "edit" },
  { command: "paste", keys: ["Ctrl+V"], group: "edit" },
  { command: "paste-previous", keys: ["Ctrl+Shift+V"], group: "edit" },
  { command: "duplicate", keys: ["D"], group: "edit" },
  { command: "cancel", keys: ["Esc"], group: "edit" },
  { command: "accept", keys: ["A"], group: "suggestions" },
  { command: "accept-shown", keys: ["Shift+A"], group: "suggestions" },
  { command: "suggestions", keys: ["H"], group: "suggestions" },
  { command: "threshold", keys: ["T"], group: "suggestions" },
  { command: "fit", keys: ["F"], group: "view" },
  { command: "actual", keys: ["Shift+F"], group: "view" },
  { command: "zoom-object", keys: ["Z"], group: "view" },
  { command: "zoom-in", keys: ["+"], group: "view" },
  { command: "zoom-out", keys: ["-"], group: "view" },
  { command: "pan", keys: ["Space+drag"], group: "view" },
  { command: "help", keys: ["?"], group: "view" },
];

/** The fields of a KeyboardEvent that count. */
export interface Key {
  key: string;
  code: string;
  ctrlKey: boolean;
  metaKey: boolean;
  shiftKey: boolean;
  altKey: boolean;
}

export interface Pressed {
  command: Command;
  dx: number;
  dy: number;
  /** The number of the class, from 0. */
  index: number;
  /** A letter or a sign alone: such a key can be switched off (WCAG 2.1.4). */
  single: boolean;
}

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const LETTERS: Record<string, Command> = {
  j: "next", k: "previous", v: "point", i: "insert", b: "box", p: "polygon", m: "keypoint", o: "visibility",
  c: "class-search", d: "duplicate", a: "accept", s: "skip", n: "nothing-here", h: "suggestions", t: "threshold",
  f: "fit", z: "zoom-object",
};
const SHIFTED: Record<string, Command> = { v: "point-back", a: "accept-shown", f: "actual" };
const WITH_CTRL: Record<string, Command> = {
  z: "undo", y: "redo", c: "copy", v: "paste", a: "select-all", s: "save",
};
const SHIFT_CTRL: Record<string, Command> = { z: "redo", v: "paste-previous" };
const NAMED: Record<string, Command> = { Enter: "confirm", Delete: "delete", Backspace: "delete", Escape: "cancel" };
const SIGNS: Record<string, Command> = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", _: "zoom-out", "?": "help" };

export function pressed(e: Key): Pressed | null {
  const of = (command: Command | undefined, rest: Partial<Pressed> = {}): Pressed | null =>
    command ? { command, dx: 0, dy: 0, index: -1, single: false, ...rest } : null;
  const ctrl = e.ctrlKey || e.metaKey;
  const letter = letterOf(e);
  if (ctrl) return e.altKey ? null : of((e.shiftKey ? SHIFT_CTRL : WITH_CTRL)[letter]);
  const arrow = ARROWS[e.key];
  if (arrow) {
    const far = e.shiftKey ? 10 : 1;
    return of(e.altKey ? "resize" : "nudge", { dx: arrow[0] * far, dy: arrow[1] * far });
  }
  if (e.altKey) return null;
  if (NAMED[e.key]) return e.shiftKey ? null : of(NAMED[e.key]);
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(e.code);
  if (digit && (e.shiftKey || e.key === digit[1] || e.code.startsWith("Digit"))) {
    return of(e.shiftKey ? "class-more" : "class", { index: Number(digit[1]) - 1, single: true });
  }
  if (SIGNS[e.key]) return of(SIGNS[e.key], { single: true });
  return of((e.shiftKey ? SHIFTED : LETTERS)[letter], { single: true });
}

/** The letter, also while a Chinese input method takes the keys, and with capitals locked. */
function letterOf(e: Key): string {
  if (/^[a-z]$/i.test(e.key)) return e.key.toLowerCase();
  const code = /^Key([A-Z])$/.exec(e.code);
  return code && (e.key === "Process" || !/^[\x20-\x7e]$/.test(e.key)) ? code[1]!.toLowerCase() : "";
}
