import assert from "node:assert/strict";
import { test } from "node:test";

import * as geometry from "../../src/screens/annotate/engine/geometry.ts";
import { boundsOf, kindOf, newShape, ofPerson, type Point } from "../../src/screens/annotate/engine/shape.ts";
import { box, HOLE, polygon, SIZE, SQUARE, suggested } from "./drawn.ts";

const outline = { part: 0, hole: -1, index: 0 };

test("bounds are those of the box, the parts or the keypoints that are there", () => {
  const nose = { name: "nose", x: 5, y: 6, visibility: 2 as const };
  const gone = { name: "ear", x: 0, y: 0, visibility: 0 as const };
  assert.deepEqual(boundsOf(box("car", 1, 2, 3, 4)), [1, 2, 3, 4]);
  assert.deepEqual(boundsOf(polygon("car", SQUARE)), [50, 20, 90, 60]);
  assert.deepEqual(boundsOf(newShape("a", "man", "", { keypoints: [nose, gone] })), [5, 6, 5, 6]);
  assert.equal(boundsOf(newShape("a", "night", "")), null);
  assert.equal(kindOf(newShape("a", "night", "")), "class");
});

test("a shape a person confirms has no score, and one that is a person’s stays the same object", () => {
  const own = box("car", 1, 2, 3, 4);
  assert.equal(ofPerson(own, "bo"), own);
  const taken = ofPerson(suggested(own, 0.5), "bo");
  assert.deepEqual([taken.source, taken.by, taken.score], ["person", "bo", null]);
});

test("a polygon is hit inside, not in its hole, and on its line", () => {
  const shape = polygon("car", SQUARE, [HOLE]);
  const cases: [Point, string | null][] = [
    [[55, 25], "inside"],
    [[65, 35], null],
    [[65, 31], "line"],
    [[49, 40], "line"],
    [[40, 40], null],
  ];
  for (const [p, expected] of cases) assert.equal(geometry.hit(shape, p, 2), expected, String(p));
});

test("of two shapes at a place the smaller one is meant, and a line before an inside", () => {
  const items = [box("car", 10, 10, 30, 30), box("car", 0, 0, 100, 90), box("dog", 18, 5, 60, 60)].map((shape) => ({ shape }));
  assert.equal(geometry.shapeAt(items, [15, 20], 1), items[0]);
  assert.equal(geometry.shapeAt(items, [70, 70], 1), items[1]);
  assert.equal(geometry.shapeAt(items, [60, 40], 1), items[2]);
  assert.equal(geometry.shapeAt(items, [18, 20], 1), items[2]); // its line, inside the smaller one
  assert.equal(geometry.shapeAt(items, [150, 95], 1), null);
});

test("corners are inserted, moved and deleted, also in holes, and the rest is the same object", () => {
  const shape = polygon("car", SQUARE, [HOLE]);
  const [more, corner] = geometry.insertCorner(shape, outline, [70, 20], SIZE);
  assert.deepEqual(corner, { ...outline, index: 1 });
  assert.equal(more.parts[0]!.outline.length, 5);
  assert.equal(more.parts[0]!.holes, shape.parts[0]!.holes);
  const moved = geometry.moveCorner(more, { part: 0, hole: 0, index: 2 }, [75, 45], SIZE);
  assert.deepEqual(moved.parts[0]!.holes[0]![2], [75, 45]);
  assert.equal(moved.parts[0]!.outline, more.parts[0]!.outline);
  const [fewer] = geometry.deleteCorner(moved, corner)!;
  assert.deepEqual(fewer.parts[0]!.outline, SQUARE);
});

test("a ring of three corners goes as a whole; the last part does not", () => {
  const triangle: Point[] = [[0, 0], [20, 0], [0, 20]];
  const two = newShape("a", "car", "", {
    parts: [
      { outline: triangle, holes: [] },
      { outline: SQUARE, holes: [HOLE.slice(0, 3)] },
    ],
  });
  const [filled] = geometry.deleteCorner(two, { part: 1, hole: 0, index: 1 })!;
  assert.deepEqual(filled.parts[1]!.holes, []);
  const [one] = geometry.deleteCorner(filled, outline)!;
  assert.equal(one.parts.length, 1);
  assert.equal(geometry.deleteCorner(polygon("car", triangle), outline), null);
});

test("a box beside parts follows them", () => {
  const shape = { ...polygon("car", SQUARE), box: [50, 20, 90, 60] as [number, number, number, number] };
  assert.deepEqual(geometry.moveCorner(shape, outline, [40, 10], SIZE).box, [40, 10, 90, 60]);
});

test("shapes move together, as far as the image goes", () => {
  const shapes = [box("car", 10, 10, 30, 30), box("car", 100, 50, 195, 90)];
  const moved = geometry.moveShapes(shapes, [50, 5], SIZE);
  assert.deepEqual(moved.map((shape) => shape.box), [[15, 15, 35, 35], [105, 55, 200, 95]]);
  // What reaches beyond the image is not moved further out, and can come back.
  const beyond = [box("car", -5, 10, 30, 30)];
  assert.deepEqual(geometry.moveShapes(beyond, [-3, 0], SIZE)[0]!.box, [-5, 10, 30, 30]);
  assert.deepEqual(geometry.moveShapes(beyond, [3, 0], SIZE)[0]!.box, [-2, 10, 33, 30]);
});

test("a handle resizes, turns over and stays in the image", () => {
  const from: [number, number, number, number] = [50, 20, 90, 60];
  const table: [geometry.Handle, Point, number[]][] = [
    [{ x: -1, y: -1 }, [40, 10], [40, 10, 90, 60]],
    [{ x: 1, y: 0 }, [120, 99], [50, 20, 120, 60]],
    [{ x: 0, y: 1 }, [0, 300], [50, 20, 90, 100]],
    [{ x: 1, y: 1 }, [30, 10], [30, 10, 50, 20]],
  ];
  for (const [handle, to, expected] of table) assert.deepEqual(geometry.resizeBox(from, handle, to, SIZE), expected);
});

test("Alt and arrows resize boxes and polygons, and leave a pixel", () => {
  assert.deepEqual(geometry.resizeShape(box("car", 10, 10, 30, 30), [-50, 5], SIZE).box, [10, 10, 11, 35]);
  const wide = geometry.resizeShape(polygon("car", SQUARE), [40, 0], SIZE);
  assert.deepEqual(wide.parts[0]!.outline, [[50, 20], [130, 20], [130, 60], [50, 60]]);
});

test("a ring that crosses itself is told from one that does not", () => {
  assert.equal(geometry.crossesItself(SQUARE), false);
  assert.equal(geometry.crossesItself([[0, 0], [10, 10], [10, 0], [0, 10]]), true);
  // Corners that touch, as of bridged rings, do not cross.
  assert.equal(geometry.crossesItself([[0, 0], [10, 0], [10, 10], [5, 0], [0, 10]]), false);
});

test("a skeleton has its keypoints in order, the missing ones as absent", () => {
  const found = [{ name: "tail", x: 1, y: 2, visibility: 2 as const }, { name: "nose", x: 3, y: 4, visibility: 1 as const }];
  const whole = geometry.skeleton(found, ["nose", "ear"]);
  assert.deepEqual(whole.map((point) => [point.name, point.visibility]), [["nose", 1], ["ear", 0], ["tail", 2]]);
});
