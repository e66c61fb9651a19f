import assert from "node:assert/strict";
import { test } from "node:test";
import catalogue from "../src/said/zh.json" with { type: "json" };
import { translate } from "../src/said/zh.ts";

test("a sentence is known by its words, whatever its values", () => {
  assert.equal(translate("No dataset 'a'. Known: b, c.", "DATASET_NOT_FOUND"), "没有数据集“a”。已有：b, c。");
  assert.equal(translate("The image has 9000 × 9000 = 81 million pixels; at most 50 million are allowed. Scale it down first."), "图像有 9000 × 9000 = 81 百万像素；最多允许 50 百万。请先缩小。");
});

test("values that are sentences are translated too", () => {
  assert.equal(translate("From live traffic, with a prediction of confidence 0.40. No object was detected."), "来自线上流量，预测的置信度为 0.40。没有检测到目标。");
  assert.equal(translate("2 objects to review, the lowest score 0.31."), "待审核：2 个目标，最低得分 0.31。");
});

test("several sentences are translated one by one, and what is not known stays as it is", () => {
  assert.equal(translate("The worker was killed by SIGKILL. The job failed after 3 attempts without a new checkpoint."), "工作进程被 SIGKILL 终止。任务在没有新检查点的情况下尝试 3 次后失败。");
  assert.equal(translate("Not measured, because the dataset has no object of these classes: a. Use a dataset that has objects of these classes, or set allow_unmeasured."), "未测量，因为数据集没有这些类别的目标：a。请使用含有这些类别目标的数据集，或设置 allow_unmeasured。");
  assert.equal(translate("The zip is encrypted. Pack it without a password. Whistle."), "zip 已加密。请不带密码打包。 Whistle.");
});

test("a sentence after a name, and lines, are found", () => {
  assert.equal(translate("a.jpg: The image file is truncated. Send the complete file.\nb.jpg: 笔"), "a.jpg：图像文件被截断。请发送完整的文件。\nb.jpg: 笔");
});

test("an unknown sentence is said in the server's words, after what its code says", () => {
  assert.equal(translate("Something new.", "CONFLICT"), "当前状态不允许：Something new.");
  assert.equal(translate("Something new.", "NEVER_HEARD_OF"), "Something new.");
  assert.equal(translate(""), "");
});

test("notes on a training are translated", () => {
  assert.equal(translate("No yolo11n weights here: they will be fetched, else the training fails."), "此处没有 yolo11n 的权重：将会下载；无法下载时训练失败。");
  assert.equal(translate("Trains on one GPU instead of 2 (VISIONLOOP_TRAIN_GPUS): batch 3 is not a multiple of 2."), "在一个 GPU 上训练，而不是 2 个（VISIONLOOP_TRAIN_GPUS）：batch 3 is not a multiple of 2。");
});

test("names stay as they are, whatever they say", () => {
  assert.equal(translate("No dataset 'The service was stopped.'. Known: Moving objects."), "没有数据集“The service was stopped.”。已有：Moving objects。");
});

test("a value with a dot is not cut", () => {
  assert.equal(translate("Send one 'image_url'; got street.jpg."), "只能发送一个 image_url；收到 street.jpg。");
});

test("each sentence is translated with all of its values, in their places", () => {
  const named = ["7", "b/c2.jpg", "vehicles-1.0.3", "it's (2)", "person: car", "x, y", "6.5"];
  for (const [english, chinese] of Object.entries(catalogue.sentences)) {
    let at = 0;
    const sentence = english.replace(/\{\}$/, "").replace(/\{\}/g, () => named[at++]!);
    const wanted = chinese.replace(/\{(\d+)\}/g, (_, number) => (Number(number) < at ? named[Number(number)]! : ""));
    assert.equal(translate(sentence), wanted);
  }
});

test("long and hostile texts are answered at once", () => {
  const began = performance.now();
  translate("'".repeat(3900));
  translate("No dataset '".repeat(300));
  translate("a ".repeat(1900) + ". ".repeat(50));
  translate("A rollback needs a model's name without a version; got " + ". To choose a version, promote it: POST /models/".repeat(70) + "~");
  translate("No kept image " + " of ".repeat(900) + ". GET /models/~");
  assert.ok(performance.now() - began < 2000);
});
