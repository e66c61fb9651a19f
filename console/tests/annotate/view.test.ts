import assert from "node:assert/strict";
import { test } from "node:test";

import { canvasSize, centred, fit, MAX_SCALE, pan, reveal, shown, smallestScale, toImage, toStage, zoomAt } from "../../src/screens/annotate/engine/view.ts";
import type { Point } from "../../src/screens/annotate/engine/shape.ts";

const image = { width: 400, height: 200 };
const stage = { width: 832, height: 632 };

const close = (a: Point, b: Point) => a.forEach((value, i) => assert.ok(Math.abs(value - b[i]!) < 1e-9, `${a} ${b}`));

test("the fitted image is whole and in the middle", () => {
  const view = fit(image, stage);
  assert.equal(view.scale, 2);
  assert.deepEqual(toStage(view, [200, 100]), [416, 316]);
  assert.equal(fit({ width: 10, height: 10 }, stage).scale, 8);
});

test("zooming keeps the point under the cursor", () => {
  let view = fit(image, stage);
  const cursor: Point = [500, 400];
  const before = toImage(view, cursor);
  for (const factor of [1.5, 1.5, 0.7, 3]) view = zoomAt(view, cursor, factor, image, stage);
  close(toImage(view, cursor), before);
});

test("zooming ends at its bounds, panning leaves a strip of the image", () => {
  const view = fit(image, stage);
  assert.equal(zoomAt(view, [416, 316], 1e6, image, stage).scale, MAX_SCALE);
  assert.equal(zoomAt(view, [416, 316], 1e-6, image, stage).scale, smallestScale(image, stage));
  const away = pan(view, [-1e6, 1e6], image, stage);
  assert.deepEqual([away.x + image.width * away.scale, away.y], [48, stage.height - 48]);
});

test("100 % is one pixel for one", () => {
  const view = centred(image, stage, 1);
  const [left, top, right, bottom] = shown(view, stage);
  assert.deepEqual([right - left, bottom - top], [stage.width, stage.height]);
});

test("a box out of view is brought into it, one in view moves nothing", () => {
  const near = zoomAt(fit(image, stage), [0, 0], 4, image, stage);
  assert.equal(reveal(near, [5, 5, 15, 15], image, stage), near);
  const there = reveal(near, [380, 180, 395, 195], image, stage);
  const [x, y] = toStage(there, [395, 195]);
  assert.ok(x <= stage.width && y <= stage.height);
  const all = reveal(near, [0, 0, 400, 200], image, stage);
  assert.ok(400 * all.scale <= stage.width);
});

test("a canvas has the screen’s pixels", () => {
  assert.deepEqual(canvasSize({ width: 100.5, height: 33 }, 2), { width: 201, height: 66 });
  assert.deepEqual(canvasSize({ width: 0, height: 0 }, 2), { width: 1, height: 1 });
});
