/** The upload that is under way; it goes on while other screens are looked at. */
import { signal } from "@preact/signals";
import { answer, api, ApiError, sendForm, type Schemas } from "../../api";
import { on } from "../../events";
import { complete, type Dataset } from "./dataset";
import { packed, MOST_BYTES, MOST_FILES, type NamedFile } from "./zip";

export interface UploadOptions {
  name: string;
  task: string;
  classes: string[];
  /** Dataset that the images are added to; empty: they become a new one. */
  dataset: string;
}

export type Upload =
  | { stage: "packing"; share: number; control: AbortController }
  | { stage: "sending"; share: number; size: number; control: AbortController }
  | { stage: "checking"; job: Schemas["JobView"] | null; jobId: string; datasetId: string; control: AbortController }
  | { stage: "done"; dataset: Dataset }
  | { stage: "added"; result: Schemas["NewImages"] }
  | { stage: "failed"; error: unknown }
  | { stage: "refused"; why: "large" | "many"; limit: number }
  | { stage: "cancelled" };

export const upload = signal<Upload | null>(null);

/** Files of one form; more are packed into a zip. */
const MOST_IN_FORM = 256;
const POLL = 1000;

/** Whether an upload is under way. */
export function busy(now: Upload | null): boolean {
  return now !== null && ["packing", "sending", "checking"].includes(now.stage);
}

/** Send files; what happens is in `upload`. `limit`: bytes that the server takes. */
export async function start(files: NamedFile[], options: UploadOptions, limit: number | null): Promise<void> {
  const control = new AbortController();
  const signal = control.signal;
  try {
    const size = files.reduce((sum, one) => sum + one.file.size, 0);
    if (size > Math.min(limit ?? Infinity, MOST_BYTES)) {
      upload.value = { stage: "refused", why: "large", limit: Math.min(limit ?? Infinity, MOST_BYTES) };
      return;
    }
    if (files.length > MOST_FILES) {
      upload.value = { stage: "refused", why: "many", limit: MOST_FILES };
      return;
    }
    const form = new FormData();
    if (files.length > MOST_IN_FORM) {
      upload.value = { stage: "packing", share: 0, control };
      const zip = await packed(files, (share) => (upload.value = { stage: "packing", share, control }), signal);
      form.append("file", zip, `${common(files)}.zip`);
    } else {
      for (const { path, file } of files) form.append("file", file, path);
    }
    if (!options.dataset) {
      if (options.name) form.append("name", options.name);
      if (options.task) form.append("task", options.task);
      if (options.classes.length) form.append("classes", JSON.stringify(options.classes));
      form.append("background", "true");
    }
    upload.value = { stage: "sending", share: 0, size, control };
    const onProgress = (share: number) => (upload.value = { stage: "sending", share, size, control });
    if (options.dataset) {
      const path = `/api/datasets/${encodeURIComponent(options.dataset)}/images`;
      const result = await sendForm<Schemas["NewImages"]>(path, form, { onProgress, signal });
      upload.value = { stage: "added", result };
      return;
    }
    const begun = await sendForm<Schemas["ImportStarted"]>("/api/datasets", form, { onProgress, signal });
    await check(begun, control);
  } catch (error) {
    upload.value = signal.aborted ? { stage: "cancelled" } : { stage: "failed", error };
  }
}

/** Follow the job that checks the upload, to its end. */
async function check(begun: Schemas["ImportStarted"], control: AbortController): Promise<void> {
  const jobId = begun.job_id;
  upload.value = { stage: "checking", job: null, jobId, datasetId: begun.dataset_id, control };
  for (;;) {
    const job = await answer(api.GET("/jobs/{job_id}", { params: { path: { job_id: jobId } } }));
    if (control.signal.aborted && job.status === "queued") await cancelJob(jobId);
    if (job.status === "completed") break;
    if (job.status === "stopped") throw new DOMException("Cancelled.", "AbortError");
    if (job.status === "failed") throw new ApiError(400, { message: job.error, code: "DATASET_INVALID" });
    upload.value = { stage: "checking", job, jobId, datasetId: begun.dataset_id, control };
    await pause(jobId);
  }
  const path = { dataset_id: begun.dataset_id };
  upload.value = { stage: "done", dataset: complete(await answer(api.GET("/api/datasets/{dataset_id}", { params: { path } }))) };
}

/** Until the job has changed, or a moment has passed. */
function pause(jobId: string): Promise<void> {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      stop();
      done();
    };
    const timer = setTimeout(end, POLL);
    const stop = on("job", (job) => job.job_id === jobId && end());
  });
}

async function cancelJob(jobId: string): Promise<void> {
  await answer(api.POST("/jobs/{job_id}/cancel", { params: { path: { job_id: jobId } } }));
}

/** End the upload that is under way; nothing of it is stored. */
export async function cancel(): Promise<void> {
  const now = upload.value;
  if (now === null || !("control" in now)) return;
  now.control.abort();
  if (now.stage === "checking") await cancelJob(now.jobId);
}

/** The folder that all files are in, or the name of the first. */
function common(files: readonly NamedFile[]): string {
  const first = files[0]!.path;
  return first.includes("/") ? first.split("/")[0]! : first.replace(/\.[^.]*$/, "");
}
