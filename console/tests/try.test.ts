import assert from "node:assert/strict";
import { test } from "node:test";
import { curl, python } from "../src/screens/try/commands.ts";
import { above, byClass, colours, drawable } from "../src/screens/try/found.ts";

const box = { x1: 1, y1: 2, x2: 3, y2: 4 };
const found = (label: string, confidence: number, more = {}) => ({ label, class_id: 0, confidence, bounding_box: box, ...more }) as never;

test("what is below the threshold is left out, and the surest come first", () => {
  const shown = above([found("a", 0.2), found("b", 0.9), found("c", 0.5)], 0.5);
  assert.deepEqual(shown.map((one) => one.label), ["b", "c"]);
});

test("of a classifier the top five are shown, however unsure it is", () => {
  const classes = Array.from({ length: 9 }, (_, at) => found(`c${at}`, 0.1 - at / 100, { bounding_box: null }));
  assert.equal(above(classes, 0.5).length, 5);
  assert.equal(above(classes, 0.01).length, 9);
});

test("classes are counted, the most frequent first", () => {
  assert.deepEqual(byClass([found("a", 0.2), found("b", 0.9), found("b", 0.5)]), [
    { label: "b", count: 2, best: 0.9 },
    { label: "a", count: 1, best: 0.2 },
  ]);
});

test("each task is drawn as what it is", () => {
  assert.equal(drawable(found("a", 1, { bounding_box: null }), "red"), null);
  const object = drawable(found("a", 0.5, { polygon: [[0, 0], [1, 0], [1, 1]], keypoints: [{ name: "nose", x: 5, y: 6, confidence: 0.1 }] }), "red")!;
  assert.deepEqual(object.box, [1, 2, 3, 4]);
  assert.equal(object.rings?.[0]?.length, 3);
  assert.deepEqual(object.points, [{ x: 5, y: 6, visible: false }]);
});

test("a class has the same colour in two models, and no two of a model are alike", () => {
  const colour = colours([{ classes: ["a", "b"] }, { classes: ["b", "c"] }] as never);
  assert.equal(new Set(["a", "b", "c"].map(colour)).size, 3);
  assert.equal(colours([{ classes: ["a", "b"] }] as never)("b"), colour("b"));
});

test("commands quote what a shell or Python would read otherwise", () => {
  const call = { url: "http://h/p", model: "it's:1", confidence: 0.25, token: true, file: "a b.jpg" };
  assert.match(curl(call), /-F model_id='it'\\''s:1'/);
  assert.match(curl(call), /image=@'a b\.jpg'/);
  assert.match(curl(call), /Bearer \$VISIONLOOP_TOKEN/);
  assert.match(python(call), /"http:\/\/h\/p\/infer"/);
  assert.match(python(call), /os\.environ\['VISIONLOOP_TOKEN'\]/);
  assert.doesNotMatch(curl({ ...call, token: false }), /Authorization/);
});
