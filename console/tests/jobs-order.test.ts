/** The order of the jobs in the drawer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inOrder, merged, without, type ActiveJob } from "../src/shell/jobs-order.ts";

const job = (id: string, status: string, place: number | null, minute: number): ActiveJob => ({
  job_id: id,
  status,
  queue_position: place,
  created_at: `2026-01-01T10:${String(minute).padStart(2, "0")}:00.000+00:00`,
});

test("jobs that run come first, then the next one of the queue", () => {
  const jobs = [job("c", "queued", 2, 3), job("d", "queued", null, 1), job("b", "queued", 1, 2), job("a", "running", null, 9), job("s", "stopping", null, 5)];
  assert.deepEqual(inOrder(jobs).map((one) => one.job_id), ["s", "a", "b", "c", "d"]);
});

test("news replace what they are about, and others are added", () => {
  const jobs = [job("a", "queued", 1, 1), job("b", "queued", 2, 2)];
  const found = merged(jobs, [job("b", "running", null, 2), job("c", "queued", 2, 3)]);
  assert.deepEqual(found.map((one) => [one.job_id, one.status]), [["a", "queued"], ["b", "running"], ["c", "queued"]]);
  assert.deepEqual(without(found, "a").map((one) => one.job_id), ["b", "c"]);
});
