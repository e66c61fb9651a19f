import assert from "node:assert/strict";
import { test } from "node:test";
import { at, bestEpoch, firstCharts, merged, names, shortly, type Epoch } from "../src/screens/train/metrics.ts";
import { modePath, ordered, requested, rows } from "../src/screens/train/settings.ts";

const epoch = (number: number, metrics: Record<string, number | null>): Epoch => ({ epoch: number, seconds: 1, metrics, at: "" });
const history = [
  epoch(1, { loss: 3, val_loss: 4, box_loss: 1, mAP50: 0.2, mAP50_95: 0.1, accuracy: 0.1, inference_time: 7 }),
  epoch(2, { loss: 2, val_loss: null, box_loss: 1, mAP50: 0.4, mAP50_95: 0.3, accuracy: 0.2, inference_time: 7 }),
  epoch(3, { loss: 1, val_loss: 3, box_loss: 1, mAP50: 0.4, mAP50_95: 0.3, accuracy: 0.2, inference_time: 7 }),
];

test("few charts first: the losses, and what says most of quality", () => {
  assert.deepEqual(firstCharts(history), { losses: ["loss", "val_loss"], quality: ["mAP50_95", "mAP50"] });
  assert.deepEqual(firstCharts([epoch(1, { loss: 1, accuracy: 0.5, accuracy_top5: 1 })]), { losses: ["loss"], quality: ["accuracy"] });
  assert.ok(!names(history).includes("inference_time"));
  assert.equal(bestEpoch(history, "mAP50_95"), 2);
  assert.equal(bestEpoch([], "mAP50_95"), null);
});

test("runs of different lengths are laid over each other by epoch", () => {
  assert.deepEqual(at(history.slice(1), [1, 2, 3, 4], "loss"), [null, 2, 1, null]);
});

test("an epoch that is trained again replaces what came after it", () => {
  const again = epoch(2, { loss: 9 });
  assert.deepEqual(merged(history, [again]), [history[0], again]);
  assert.deepEqual(merged(history, []), history);
});

test("values in few characters", () => {
  assert.deepEqual([0, 0.12345, 0.00001, 1.234, 12.34, 123.4, 12345].map(shortly), ["0", "0.123", "1.0e-5", "1.23", "12.3", "123", "1.2e+4"]);
});

test("the settings of a job of either client family become those of a form", () => {
  assert.deepEqual(requested({ model_id: "n", dataset_path: "d", batch_size: 4, parameters: { imgsz: 96, mode: "regular" }, resolved: { a: 1 } }), {
    imgsz: 96,
    model_type: "n",
    data_path: "d",
    batch: 4,
  });
  assert.deepEqual(requested({ data_path: "d", epochs: 3, resolved: {} }), { data_path: "d", epochs: 3 });
  assert.equal(modePath("freeze_strategy"), "freeze-strategy");
  assert.equal(modePath(null), "regular");
});

test("settings as rows, the most asked for first", () => {
  assert.deepEqual(ordered(rows({ patience: 3, hyper: { lr0: 0.1 }, epochs: 2, name: "", notes: ["x"], classes: ["a", "b"] })), [
    ["epochs", "2"],
    ["patience", "3"],
    ["hyper.lr0", "0.1"],
    ["classes", "a, b"],
  ]);
});
