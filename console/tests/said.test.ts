import assert from "node:assert/strict";
import { test } from "node:test";
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

test("long and hostile texts are answered at once", () => {
  const began = performance.now();
  translate("'".repeat(3900));
  translate("No dataset '".repeat(300));
  translate("a ".repeat(1900) + ". ".repeat(50));
  assert.ok(performance.now() - began < 2000);
});
