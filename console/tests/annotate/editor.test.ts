import assert from "node:assert/strict";
import { test } from "node:test";

import { Clipboard } from "../../src/screens/annotate/engine/clipboard.ts";
import { isCrossed } from "../../src/screens/annotate/engine/geometry.ts";
import { overlayOf } from "../../src/screens/annotate/engine/overlay.ts";
import { newShape, type Point, type Shape } from "../../src/screens/annotate/engine/shape.ts";
import { box, click, drag, HOLE, opened, polygon, random, REACH, SQUARE, suggested } from "./drawn.ts";

const keysOf = (count: number, step: () => void) => Array.from({ length: count }).forEach(step);

test("what nobody touches goes back as it came", () => {
  const objects = [
    suggested(box("car", 1.23456789, 2, 3, 4), 0.123456789),
    polygon("tree", SQUARE, [HOLE]),
    newShape("", "night", "ann", { keypoints: [{ name: "n", x: 1, y: 2, visibility: 1, score: 0.3 }] }),
    newShape("", "dusk", "ann"),
  ];
  const before = structuredClone(objects);
  const { editor } = opened({ objects });
  click(editor, [2, 3]);
  editor.step(1);
  editor.boxKey();
  editor.cancel();
  assert.deepEqual(editor.objects, before);
  assert.deepEqual(editor.classes, ["car", "person", "dog", "tree", "night", "dusk"]);
  assert.equal(editor.canUndo, false);
});

test("a box is drawn by a drag, moved by a drag and resized at its corner: a step each", () => {
  const { editor } = opened();
  editor.setTool("box");
  drag(editor, [20, 20], [60, 50]);
  assert.deepEqual(editor.objects.map((shape) => [shape.label, shape.box]), [["car", [20, 20, 60, 50]]]);
  assert.equal(editor.tool, "box"); // it stays for the next one
  drag(editor, [60, 50], [70, 55]);
  assert.deepEqual(editor.objects[0]!.box, [20, 20, 70, 55]);
  editor.setTool("select");
  drag(editor, [40, 40], [50, 45]);
  assert.deepEqual(editor.objects[0]!.box, [30, 25, 80, 60]);
  assert.equal(editor.steps, 3);
  keysOf(3, () => editor.undo());
  assert.equal(editor.objects.length, 0);
  keysOf(3, () => editor.redo());
  assert.deepEqual(editor.objects[0]!.box, [30, 25, 80, 60]);
});

test("while a shape is dragged the items do not change; Escape drops the drag", () => {
  const { editor } = opened({ objects: [box("car", 10, 10, 50, 50)] });
  const { items } = editor;
  editor.press([30, 30], REACH);
  editor.move([60, 40], 1);
  assert.equal(editor.items, items);
  assert.deepEqual(editor.shapeOf(items[0]!).box, [40, 20, 80, 60]);
  editor.cancel();
  assert.equal(editor.preview.size, 0);
  editor.release([60, 40], REACH);
  assert.equal(editor.items, items);
});

test("a click with the box tool selects, and draws nothing", () => {
  const { editor } = opened({ objects: [box("car", 10, 10, 50, 50)], }, { tool: "box" });
  click(editor, [30, 30]);
  assert.equal(editor.objects.length, 1);
  assert.deepEqual(editor.selected, [editor.items[0]!.key]);
  click(editor, [150, 80]);
  assert.deepEqual(editor.selected, []);
});

test("a box by keyboard alone: B B, arrows, Alt and arrows, the corner by V", () => {
  const { editor, said } = opened();
  editor.boxKey();
  editor.boxKey();
  assert.deepEqual(editor.objects[0]!.box, [75, 38, 125, 63]);
  editor.nudge(-10, 0);
  editor.nudge(0, 1);
  editor.resize(10, 0);
  editor.nextPoint();
  editor.nudge(5, 5);
  assert.deepEqual(editor.objects[0]!.box, [70, 44, 125, 64]);
  for (const what of ["drawn", "moved", "resized", "handle"]) assert.ok(said().includes(what), what);
  keysOf(5, () => editor.undo());
  assert.equal(editor.objects.length, 0);
});

test("a held arrow key is one step", () => {
  const { editor } = opened({ objects: [box("car", 10, 10, 50, 50)] });
  editor.step(1);
  editor.nudge(1, 0);
  keysOf(20, () => editor.nudge(1, 0, true));
  assert.deepEqual(editor.objects[0]!.box, [31, 10, 71, 50]);
  editor.undo();
  assert.deepEqual(editor.objects[0]!.box, [10, 10, 50, 50]);
});

test("a polygon by clicks, closed at its first corner", () => {
  const { editor } = opened();
  editor.setTool("polygon");
  for (const p of SQUARE) click(editor, p);
  assert.equal(editor.isDrawing, true);
  click(editor, [51, 21]);
  assert.deepEqual(editor.objects[0]!.parts, [{ outline: SQUARE, holes: [] }]);
  assert.equal(editor.tool, "polygon");
});

test("a polygon freehand, with the button held", () => {
  const { editor } = opened();
  editor.setTool("polygon");
  editor.press([50, 20], REACH);
  for (const p of [[55, 20], [90, 20], [90, 60], [50, 60], [51, 22]] as Point[]) editor.move(p, 2);
  editor.release([51, 22], REACH);
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline, [[50, 20], [90, 20], [90, 60], [50, 60], [51, 22]]);
});

test("a polygon by keyboard alone: P, arrows and I, Enter; then V, I, arrows, Delete", () => {
  const { editor, said } = opened();
  editor.polygonKey();
  editor.insert(); // 100, 50
  editor.nudge(20, 0);
  editor.insert();
  editor.nudge(0, 10);
  editor.insert();
  editor.nudge(0, 10);
  editor.insert();
  editor.undo(); // takes the last point back
  editor.closePolygon();
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline, [[100, 50], [120, 50], [120, 60]]);
  editor.nextPoint();
  editor.insert();
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline[1], [110, 50]);
  editor.nudge(0, -10);
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline[1], [110, 40]);
  editor.delete();
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline, [[100, 50], [120, 50], [120, 60]]);
  editor.delete();
  assert.equal(said().at(-1), "corner-last");
  editor.cancel();
  editor.delete();
  assert.equal(editor.objects.length, 0);
  keysOf(5, () => editor.undo());
  assert.equal(editor.canUndo, false);
});

test("P P puts a polygon in the middle, P closes one that is being drawn", () => {
  const { editor } = opened();
  editor.polygonKey();
  editor.polygonKey();
  assert.equal(editor.objects[0]!.parts[0]!.outline.length, 8);
  assert.equal(isCrossed(editor.objects[0]!), false);
});

test("corners by mouse: dragged, inserted from the middle of an edge, deleted with Alt", () => {
  const { editor } = opened({ objects: [polygon("car", SQUARE, [HOLE])] });
  click(editor, [55, 25]);
  drag(editor, [90, 60], [95, 70]);
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline[2], [95, 70]);
  drag(editor, [70, 20], [70, 5]);
  assert.deepEqual(editor.objects[0]!.parts[0]!.outline[1], [70, 5]);
  drag(editor, [60, 30], [58, 28]);
  assert.deepEqual(editor.objects[0]!.parts[0]!.holes[0]![0], [58, 28]);
  click(editor, [70, 5], { alt: true });
  assert.equal(editor.objects[0]!.parts[0]!.outline.length, 4);
  assert.equal(editor.insertNear([50, 45], 3), true);
  assert.equal(editor.objects[0]!.parts[0]!.outline.length, 5);
  assert.equal(editor.steps, 5);
});

test("a polygon that crosses itself is told and kept", () => {
  const { editor, said } = opened({ objects: [polygon("car", SQUARE)] });
  click(editor, [70, 40]);
  drag(editor, [50, 20], [100, 50]);
  assert.equal(said().at(-1), "crossed");
  assert.equal(isCrossed(editor.objects[0]!), true);
});

test("a number relabels the selection, else sets the class of the next shapes", () => {
  const { editor } = opened({ objects: [box("car", 10, 10, 50, 50)] });
  editor.setClass("dog");
  assert.deepEqual([editor.currentClass, editor.objects[0]!.label], ["dog", "car"]);
  editor.step(1);
  editor.setClass("person");
  assert.deepEqual([editor.currentClass, editor.objects[0]!.label], ["person", "person"]);
  editor.addClass(" lorry ");
  assert.equal(editor.objects[0]!.label, "lorry");
  assert.equal(editor.classes.at(-1), "lorry");
});

test("without a class nothing is drawn, and the person is told", () => {
  const { editor, said } = opened({ classes: [] });
  editor.boxKey();
  editor.boxKey();
  assert.equal(editor.objects.length, 0);
  assert.equal(said().at(-1), "needs-class");
});

const suggestions = (): Shape[] => [
  suggested(box("car", 10, 10, 40, 40), 0.9),
  suggested(box("dog", 100, 10, 140, 40), 0.4),
  suggested(box("dog", 100, 60, 140, 90), 0.2),
];

test("suggestions are no objects until they are accepted, singly or all above the threshold", () => {
  const { editor } = opened({ suggestions: suggestions() }, { threshold: 0.3 });
  assert.equal(editor.objects.length, 0);
  assert.equal(editor.suggestionCount, 2);
  editor.step(1);
  editor.acceptSelected();
  assert.deepEqual(editor.objects.map((shape) => [shape.source, shape.score]), [["person", null]]);
  editor.acceptShown();
  assert.equal(editor.objects.length, 2);
  editor.setThreshold(0);
  assert.equal(editor.suggestionCount, 1);
  editor.undo();
  editor.undo();
  assert.equal(editor.objects.length, 0);
});

test("an edited suggestion is a person’s object, a deleted one is gone", () => {
  const { editor, said } = opened({ suggestions: suggestions() });
  editor.step(1);
  editor.nudge(1, 0);
  assert.deepEqual(editor.objects.map((shape) => [shape.box, shape.source]), [[[11, 10, 41, 40], "person"]]);
  editor.step(1);
  editor.delete();
  assert.equal(said().at(-1), "rejected");
  assert.equal(editor.items.length, 2);
  assert.equal(editor.step(1)!.shape.score, 0.2); // goes on where it was
});

test("Enter confirms what is seen: hidden suggestions and those below the threshold go", () => {
  const objects = [suggested(box("person", 1, 1, 5, 5), 0.5), box("car", 5, 5, 9, 9)];
  const { editor } = opened({ objects, suggestions: suggestions() }, { threshold: 0.3 });
  const confirmed = editor.confirm();
  assert.deepEqual(confirmed.map((shape) => [shape.label, shape.source, shape.score]), [
    ["person", "person", null],
    ["car", "person", null],
    ["car", "person", null],
    ["dog", "person", null],
  ]);
  assert.equal(confirmed[1], objects[1]);
  editor.undo();
  editor.showSuggestions(false);
  assert.equal(editor.confirm().length, 2);
});

test("a suggestion that says what an object says is not shown", () => {
  const [first, ...rest] = suggestions();
  const { editor } = opened({ objects: [{ ...first!, box: [10, 10, 40, 41], id: "x", source: "person", score: null }], suggestions: [first!, ...rest] });
  assert.equal(editor.items.length, 3);
});

test("nothing here: all goes, and undo brings all back", () => {
  const { editor } = opened({ objects: [box("car", 1, 1, 5, 5)], suggestions: suggestions() });
  editor.clear();
  assert.equal(editor.items.length, 0);
  editor.undo();
  assert.equal(editor.items.length, 4);
});

test("classes of an image: one by a number, several with Shift, undone", () => {
  const { editor } = opened({ task: "classify", suggestions: [suggested(newShape("s", "dog", "m"), 0.8)] });
  editor.setClass("car");
  assert.deepEqual(editor.items.map((item) => item.shape.label), ["car"]);
  editor.chooseClass("person", true);
  assert.deepEqual(editor.objects.map((shape) => shape.label), ["car", "person"]);
  editor.chooseClass("car", true);
  assert.deepEqual(editor.objects.map((shape) => shape.label), ["person"]);
  editor.setClass("dog");
  assert.deepEqual(editor.objects.map((shape) => shape.label), ["dog"]);
  keysOf(4, () => editor.undo());
  assert.deepEqual(editor.confirm().map((shape) => shape.label), ["dog"]);
});

test("of several suggested classes Enter takes the likeliest", () => {
  const of = (label: string, score: number) => suggested(newShape(label, label, "m"), score);
  const { editor } = opened({ task: "classify", suggestions: [of("car", 0.2), of("dog", 0.7), of("person", 0.1)] });
  assert.deepEqual(editor.confirm().map((shape) => shape.label), ["dog"]);
});

test("keypoints are placed in order, moved, and made occluded and absent", () => {
  const { editor, said } = opened({ keypointNames: ["nose", "tail"], task: "pose" });
  editor.setTool("box");
  drag(editor, [20, 20], [80, 80]);
  editor.keypointKey();
  assert.equal(editor.nextKeypoint, "nose");
  click(editor, [30, 30]);
  assert.equal(editor.nextKeypoint, "tail");
  editor.keypointKey();
  assert.deepEqual(editor.objects[0]!.keypoints.map((point) => [point.name, point.x, point.y, point.visibility]), [["nose", 30, 30, 2], ["tail", 50, 50, 2]]);
  editor.nudge(5, 0);
  editor.toggleVisibility();
  assert.deepEqual(editor.objects[0]!.keypoints[1], { name: "tail", x: 55, y: 50, visibility: 1 });
  editor.toggleVisibility();
  assert.deepEqual(editor.objects[0]!.keypoints[1], { name: "tail", x: 0, y: 0, visibility: 0 });
  editor.setTool("select");
  drag(editor, [30, 30], [35, 40]);
  assert.deepEqual(editor.objects[0]!.keypoints[0], { name: "nose", x: 35, y: 40, visibility: 2 });
  assert.ok(said().includes("keypoint"));
});

test("shapes are copied to the next image with their class", () => {
  const clipboard = new Clipboard();
  const one = opened({ objects: [box("lorry", 10, 10, 50, 50)] }, { clipboard }).editor;
  one.selectAll();
  one.copy("one");
  one.duplicate();
  assert.deepEqual(one.objects.map((shape) => shape.box), [[10, 10, 50, 50], [20, 20, 60, 60]]);
  const other = opened({}, { clipboard }).editor;
  other.paste("other");
  assert.deepEqual(other.objects.map((shape) => [shape.label, shape.box]), [["lorry", [10, 10, 50, 50]]]);
  assert.ok(other.classes.includes("lorry"));
});

test("the overlay has the selected shape alone, with handles", () => {
  const { editor } = opened({ objects: [box("car", 10, 10, 50, 50), polygon("dog", SQUARE, [HOLE])] });
  const seen = () => overlayOf(editor, { scale: 2, x: 5, y: 5 }, () => "#fff");
  assert.equal(seen().outline, "");
  editor.step(1);
  assert.equal(seen().handles.split("M").length - 1, 8);
  assert.equal(seen().outline, "M25.0 25.0L105.0 25.0L105.0 105.0L25.0 105.0Z");
  editor.step(1);
  assert.equal(seen().handles.split("M").length - 1, 8); // four corners, four of the hole
  editor.selectAll();
  assert.equal(seen().handles, "");
});

test("whatever is done, undo leads to the beginning and redo to the end", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const next = random(seed);
    const at = (): Point => [next() * 220 - 10, next() * 120 - 10];
    const objects = [box("car", 10, 10, 50, 50), polygon("dog", SQUARE, [HOLE]), suggested(box("car", 1, 1, 9, 9), 0.4)];
    const { editor } = opened({ objects, suggestions: suggestions(), keypointNames: ["nose"] });
    const before = structuredClone(editor.items);
    const actions = [
      () => editor.step(1), () => editor.step(-1), () => editor.nextPoint(), () => editor.insert(), () => editor.boxKey(),
      () => editor.polygonKey(), () => editor.nudge(next() * 40 - 20, next() * 40 - 20), () => editor.resize(next() * 40 - 20, 3),
      () => editor.delete(), () => editor.setClass("dog"), () => drag(editor, at(), at()), () => click(editor, at()),
      () => click(editor, at(), { alt: true }), () => click(editor, at(), { shift: true }), () => editor.acceptSelected(),
      () => editor.acceptShown(), () => editor.copy(editor), () => editor.paste(editor), () => editor.duplicate(),
      () => editor.keypointKey(), () => editor.toggleVisibility(), () => editor.cancel(), () => editor.undo(), () => editor.redo(),
      () => editor.selectAll(), () => editor.clear(), () => editor.confirm(), () => editor.closePolygon(),
      () => editor.setTool("select"), () => editor.insertNear(at(), 20), () => editor.setThreshold(next()),
    ];
    for (let step = 0; step < 200; step++) {
      actions[Math.floor(next() * actions.length)]!();
      for (const { shape } of editor.items) {
        for (const part of shape.parts) assert.ok(part.outline.length >= 3);
        if (shape.box) assert.ok(shape.box[2] > shape.box[0] && shape.box[3] > shape.box[1], JSON.stringify(shape));
      }
      assert.equal(new Set(editor.items.map((item) => item.key)).size, editor.items.length);
      const keys = new Set(editor.items.map((item) => item.key));
      assert.ok(editor.selected.every((key) => keys.has(key)));
    }
    editor.cancel();
    editor.cancel();
    const after = structuredClone(editor.items);
    const steps = editor.steps;
    while (editor.canUndo) editor.undo();
    assert.deepEqual(editor.items, before);
    keysOf(steps, () => editor.redo());
    assert.deepEqual(editor.items, after);
  }
});
