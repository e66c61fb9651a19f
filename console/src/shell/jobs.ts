/** The jobs of the header: those that run or wait, kept up to date by the events. */
import { computed, effect, signal } from "@preact/signals";
import { answer, api, type Schemas } from "../api";
import { on } from "../events";
import { may, signIns } from "../session";
import { inOrder, merged, without } from "./jobs-order";

export type Job = Schemas["JobView"];

export const PAGE = 100; // jobs that are shown or read at once
const MOST = 1000; // that the API lists at once

const ACTIVE = ["queued", "running", "stopping"] as const;
const FINISHED = ["completed", "failed", "stopped"] as const;

const known = signal<readonly Job[]>([]);
/** Whether more wait than were read: only then the number is not exact. */
export const moreWait = signal(false);
/** The jobs that ended last, the newest first; undefined until they were read. */
export const finished = signal<readonly Job[] | undefined>(undefined);
export const moreFinished = signal(false);
export const jobsError = signal<unknown>(undefined);
/** The jobs whose cancel is under way. */
export const cancelling = signal<ReadonlySet<string>>(new Set());

/** Running jobs, then those that wait, the next one first. */
export const active = computed(() => inOrder(known.value));

let begun = false;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Read and follow the jobs while the caller may use the server. */
export function startJobs(): void {
  if (begun) return;
  begun = true;
  on("job", (data) => take(data as unknown as Job));
  on("job_deleted", (data) => remove(String(data.job_id)));
  on("reset", () => void readActive());
  effect(() => {
    void signIns.value;
    if (may("use")) void readActive();
    else known.value = [];
  });
}

async function page(status: readonly Job["status"][], limit: number, before?: string): Promise<Job[]> {
  const query = { status: [...status], limit, before };
  return (await answer(api.GET("/jobs", { params: { query } }))).jobs;
}

async function readActive(): Promise<void> {
  try {
    const [running, waiting] = await Promise.all([page(["running", "stopping"], MOST), page(["queued"], MOST)]);
    known.value = [...running, ...waiting];
    moreWait.value = waiting.length === MOST;
    jobsError.value = undefined;
    if (finished.value) await readFinished();
  } catch (error) {
    jobsError.value = error;
  }
}

/** Read the jobs that ended last; with `more` also older ones. */
export async function readFinished(more = false): Promise<void> {
  const before = more ? finished.value?.at(-1)?.job_id : undefined;
  const found = await page(FINISHED, PAGE, before);
  finished.value = more ? [...(finished.value ?? []), ...found] : found;
  moreFinished.value = found.length === PAGE;
}

function take(job: Job): void {
  const isActive = ACTIVE.some((status) => status === job.status);
  const before = known.value.find((one) => one.job_id === job.job_id);
  known.value = isActive ? merged(known.value, [job]) : without(known.value, job.job_id);
  if (!isActive) {
    settle(job.job_id);
    if (finished.value) finished.value = [job, ...without(finished.value, job.job_id)];
  }
  // Those behind it in the queue have moved up; many changes at once are one reading.
  if (before?.status === "queued" && job.status !== "queued") {
    clearTimeout(timer);
    timer = setTimeout(() => void readActive(), 500);
  }
}

function remove(id: string): void {
  known.value = without(known.value, id);
  if (finished.value) finished.value = without(finished.value, id);
}

function settle(id: string): void {
  if (!cancelling.value.has(id)) return;
  cancelling.value = new Set([...cancelling.value].filter((one) => one !== id));
}

/** Have a job cancelled. It is shown as "cancelling" until the server says that it has ended. */
export async function cancelJob(id: string): Promise<void> {
  cancelling.value = new Set([...cancelling.value, id]);
  try {
    take(await answer(api.POST("/jobs/{job_id}/cancel", { params: { path: { job_id: id } } })));
  } finally {
    settle(id); // what it is from now on, its status says
  }
}

