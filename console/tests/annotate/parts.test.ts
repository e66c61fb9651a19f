import assert from "node:assert/strict";
import { test } from "node:test";

import { Clipboard } from "../../src/screens/annotate/engine/clipboard.ts";
import { History } from "../../src/screens/annotate/engine/history.ts";
import { BINDINGS, pressed, type Key } from "../../src/screens/annotate/engine/keys.ts";
import { changedPart, inView, MAX_LABELLED, tagOf } from "../../src/screens/annotate/engine/scene.ts";
import { box, polygon, SIZE, SQUARE, suggested } from "./drawn.ts";

test("undo leads back step by step, redo forward, and a new step forgets the undone", () => {
  const history = new History<number>();
  for (const before of [0, 1, 2]) history.push(before);
  assert.equal(history.undo(3), 2);
  assert.equal(history.undo(2), 1);
  assert.equal(history.redo(1), 2);
  history.push(2);
  assert.equal(history.redo(9), undefined);
});

test("beyond its limit the history forgets steps, but never the beginning", () => {
  const history = new History<number>(10);
  for (let before = 0; before < 500; before++) history.push(before);
  assert.equal(history.steps, 10);
  let now = 500;
  while (history.canUndo) now = history.undo(now)!;
  assert.equal(now, 0);
});

test("a copy lies aside on its own image, and in place on another", () => {
  const clipboard = new Clipboard();
  const here = {};
  clipboard.copy([suggested(box("car", 10, 10, 30, 30), 0.5)], here);
  let id = 0;
  const paste = (image: unknown) => clipboard.paste(image, SIZE, "bo", () => `n${++id}`)[0]!;
  assert.deepEqual(paste(here).box, [20, 20, 40, 40]);
  assert.deepEqual(paste(here).box, [30, 30, 50, 50]);
  const there = paste({});
  assert.deepEqual([there.box, there.source, there.by, there.score, there.id], [[10, 10, 30, 30], "person", "bo", null, "n3"]);
});

test("a copy from a larger image is moved and scaled into a smaller one", () => {
  const clipboard = new Clipboard();
  clipboard.copy([box("car", 900, 700, 1300, 900), box("dog", 500, 10, 520, 20)], {});
  const [large, small] = clipboard.paste({}, SIZE, "bo", () => "n");
  assert.deepEqual(large!.box, [0, 0, 200, 100]);
  assert.deepEqual(small!.box, [180, 10, 200, 20]);
});

const key = (text: string, more: Partial<Key> = {}): Key => ({
  key: text,
  code: /^[a-z]$/i.test(text) ? `Key${text.toUpperCase()}` : "",
  ctrlKey: false,
  metaKey: false,
  shiftKey: false,
  altKey: false,
  ...more,
});

test("keys mean their commands, on every keyboard", () => {
  const table: [Key, string | undefined][] = [
    [key("j"), "next"],
    [key("J"), "next"],
    [key("J", { shiftKey: true }), undefined],
    [key("V", { shiftKey: true }), "point-back"],
    [key("z", { ctrlKey: true }), "undo"],
    [key("Z", { metaKey: true, shiftKey: true }), "redo"],
    [key("Process", { code: "KeyB" }), "box"],
    [key("ф", { code: "KeyA" }), "accept"],
    [key("&", { code: "Digit1" }), "class"],
    [key("!", { code: "Digit1", shiftKey: true }), "class-more"],
    [key("+", { shiftKey: true, code: "Equal" }), "zoom-in"],
    [key("?", { shiftKey: true, code: "Slash" }), "help"],
    [key("Enter"), "confirm"],
    [key("r", { ctrlKey: true }), undefined],
    [key("j", { altKey: true }), undefined],
    [key("F5"), undefined],
  ];
  for (const [input, expected] of table) assert.equal(pressed(input)?.command, expected, JSON.stringify(input));
  const far = pressed(key("ArrowLeft", { altKey: true, shiftKey: true }))!;
  assert.deepEqual([far.command, far.dx, far.dy], ["resize", -10, 0]);
});

test("each command that a key has is in the help", () => {
  const listed = new Set<string>(BINDINGS.map((binding) => binding.command));
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  for (const shiftKey of [false, true]) {
    for (const ctrlKey of [false, true]) {
      for (const text of [...letters, "+", "-", "?", "Enter", "Delete", "Backspace", "Escape", "ArrowUp"]) {
        const found = pressed(key(text, { shiftKey, ctrlKey }));
        if (found) assert.ok(listed.has(found.command), found.command);
      }
    }
  }
});

test("what is out of view or selected is not drawn", () => {
  const items = [box("car", 0, 0, 5, 5), box("car", 150, 50, 190, 90), polygon("dog", SQUARE)].map((shape, i) => ({ key: `${i}`, shape, suggested: false }));
  const view = { scale: 10, x: -450, y: -150 };
  const found = inView({ items, skip: new Set(), view, stage: { width: 500, height: 500 } });
  assert.deepEqual(found.map((item) => item.key), ["2"]);
  assert.deepEqual(inView({ items, skip: new Set(["2"]), view, stage: { width: 500, height: 500 } }), []);
  assert.equal(MAX_LABELLED, 60);
});

test("a model’s label has its score", () => {
  assert.equal(tagOf(box("car", 0, 0, 1, 1)), "car");
  assert.equal(tagOf(suggested(box("car", 0, 0, 1, 1), 0.876)), "car 88 %");
});

test("only the part of the canvas where something changed is painted anew", () => {
  const items = [box("car", 0, 0, 5, 5), box("car", 150, 50, 190, 90), polygon("dog", SQUARE)].map((shape, i) => ({ key: `${i}`, shape, suggested: false }));
  const none = new Set<string>();
  assert.equal(changedPart(items, none, items, none), null);
  assert.deepEqual(changedPart(items, new Set(["1"]), items, none), [150, 50, 190, 90]);
  const moved = items.with(0, { ...items[0]!, shape: box("car", 10, 10, 15, 15) });
  assert.deepEqual(changedPart(moved, none, items, none), [0, 0, 15, 15]);
  assert.deepEqual(changedPart(items.slice(1), new Set(["2"]), items, none), [0, 0, 90, 60]);
});
