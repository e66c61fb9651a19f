/** Where entries of a timeline lead, and what should come next. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { byDay, destination, nextStep, type TimelineEntry } from "../src/screens/loop/entries.ts";

const entry = (kind: string, more: Partial<TimelineEntry> = {}): TimelineEntry => ({
  id: kind, at: "2026-01-01T10:00:00.000+00:00", kind, model_id: null, job_id: null, dataset: null, compared: null, report_url: null, ...more,
});

test("an entry opens its report, or else what it is about", () => {
  const refused = entry("refused", { model_id: "signs:2", report_url: "/metrics/signs:2/report.html?evaluation=e" });
  assert.deepEqual(destination(refused), { to: "report", url: refused.report_url });
  assert.deepEqual(destination(entry("corrections", { dataset: "street-1@3" })), { to: "data", id: "street-1" });
  assert.deepEqual(destination(entry("failed", { job_id: "j", model_id: "signs:1" })), { to: "job", id: "j" });
  assert.deepEqual(destination(entry("drift", { model_id: "signs:1" })), { to: "model", id: "signs:1" });
  assert.equal(destination(entry("deleted", { model_id: "signs:1" })), null);
});

const versions = [
  { id: "signs:1", promoted: true, created_at: "2026-01-01T10:00:00.000+00:00" },
  { id: "signs:2", promoted: false, created_at: "2026-01-02T10:00:00.000+00:00" },
];

test("a version that nobody has decided on is compared next", () => {
  assert.deepEqual(nextStep([], versions), { kind: "promote", candidate: "signs:2", promoted: "signs:1" });
  assert.deepEqual(nextStep([entry("refused", { model_id: "signs:2" })], versions), { kind: "correct" });
});

test("corrections that are newer than the last training are learned next", () => {
  const corrections = entry("corrections", { dataset: "street-1@3", at: "2026-01-05T10:00:00.000+00:00" });
  assert.deepEqual(nextStep([corrections, entry("trained")], []), { kind: "train", dataset: "street-1" });
  assert.deepEqual(nextStep([entry("trained", { at: "2026-01-06T10:00:00.000+00:00" }), corrections], []), { kind: "correct" });
});

test("days keep the order of their entries", () => {
  const entries = ["2026-01-02T10", "2026-01-02T09", "2026-01-01T23"].map((at) => ({ at }));
  assert.deepEqual(byDay(entries, (at) => at.slice(0, 10)).map(([day, of]) => [day, of.length]), [["2026-01-02", 2], ["2026-01-01", 1]]);
});
