import assert from "node:assert/strict";
import { test } from "node:test";
import { byName, history, meant, sharesOf, value } from "../src/screens/models/figures.ts";

const version = (id: string, at: string, more = {}) => {
  const [name] = id.split(":");
  return { id, name, created_at: at, type: "detection", metrics: null, promoted: false, active: false, ...more } as never;
};

test("the name of the active model comes first, its versions the oldest first", () => {
  const rows = byName([version("b:2", "2026-02"), version("a:2", "2026-03"), version("b:1", "2026-01", { active: true })]);
  assert.deepEqual(rows.map((row) => row.name), ["b", "a"]);
  assert.deepEqual(rows[0]!.versions.map((one) => one.id), ["b:1", "b:2"]);
});

test("a name means its promoted version, else the newest", () => {
  assert.equal(meant([version("a:1", "1", { promoted: true }), version("a:2", "2")]).id, "a:1");
  assert.equal(meant([version("a:1", "1"), version("a:2", "2")]).id, "a:2");
});

test("what was not measured is no point of the history", () => {
  const measured = (share: unknown) => ({ metrics: { mAP50_95: share } });
  assert.deepEqual(history([version("a:1", "1"), version("a:2", "2", measured(0.5)), version("a:3", "3", measured(null))]), [0.5]);
});

test("metrics come in the order of their type, without those that are missing", () => {
  assert.deepEqual(sharesOf("detection", { recall: 0.1, mAP50: 0.2, mAP50_95: 0.3, images: 3 }), ["mAP50_95", "mAP50", "recall"]);
  assert.equal(value({ a: Number.NaN }, "a"), null);
});
