/** Figures of the service from the steps of `/stats`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { byKind, errorsByCode, hasValues, lastWith, perMinute, type Step } from "../src/screens/operate/figures.ts";

const step = (at: number, more: Partial<Step> = {}): Step => ({
  at, seconds: 10, images_per_second: 0, requests_per_second: 0, p50_ms: null, p99_ms: null,
  batch_size: null, queued: 0, errors: {}, client_errors: 0, server_errors: 0, ...more,
});

test("the last latency is that of the last step with predictions", () => {
  const steps = [step(1, { p50_ms: 5 }), step(2, { p50_ms: 7 }), step(3)];
  assert.equal(lastWith(steps, "p50_ms")?.at, 2);
  assert.equal(lastWith([step(1)], "p50_ms"), undefined);
  assert.equal(hasValues([null, 0]), true);
  assert.equal(hasValues([null, undefined]), false);
});

test("errors are added up, the most frequent first", () => {
  const steps = [step(1, { errors: { A: 1, B: 2 } }), step(2, { errors: { A: 4 } })];
  assert.deepEqual(errorsByCode(steps), [["A", 5], ["B", 2]]);
  assert.equal(perMinute(steps[0]!, 2), 12);
});

test("processes of a kind are one row, the largest first", () => {
  const rows = byKind([
    { kind: "job", pid: 1, resident_bytes: 5 },
    { kind: "Detector", pid: 2, resident_bytes: 50 },
    { kind: "job", pid: 3, resident_bytes: 6 },
  ]);
  assert.deepEqual(rows, [
    { kind: "Detector", pids: [2], bytes: 50 },
    { kind: "job", pids: [1, 3], bytes: 11 },
  ]);
});
