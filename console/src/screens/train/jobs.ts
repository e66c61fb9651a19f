/** Jobs and their histories, as this screen reads them. */
import { useEffect, useRef, useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { useInterval } from "../../load";
import { merged, type Epoch } from "./metrics";

export type Job = Schemas["JobView"];

export const LIVE_MS = 2000; // between two readings of a job that runs

export function isFinal({ status }: Job): boolean {
  return status === "completed" || status === "failed" || status === "stopped";
}

/** A job's name for people: the model's that it makes or works on. */
export function nameOf(job: Job): string {
  return job.model_name ?? job.base_model ?? job.job_id.slice(0, 8);
}

export async function readJob(id: string, signal?: AbortSignal): Promise<Job> {
  return answer(api.GET("/jobs/{job_id}", { params: { path: { job_id: id } }, signal }));
}

/** All epochs after one, page by page. */
export async function readHistory(id: string, after = 0, signal?: AbortSignal): Promise<Epoch[]> {
  const found: Epoch[] = [];
  let next: number | null = after;
  while (next !== null && found.length < 20_000) {
    const page: Schemas["MetricHistory"] = await answer(
      api.GET("/jobs/{job_id}/metrics/history", { params: { path: { job_id: id }, query: { after: next } }, signal }),
    );
    found.push(...page.epochs);
    next = page.next_after;
  }
  return found;
}

/** The epochs of a job, as they come while it runs. */
export function useHistory(id: string, live: boolean, attempts: number): Epoch[] | undefined {
  const [history, setHistory] = useState<Epoch[]>();
  const known = useRef<{ id: string; epochs: Epoch[] }>({ id, epochs: [] });
  const busy = useRef(false);
  const read = async (all: boolean) => {
    if (busy.current) return;
    busy.current = true;
    try {
      const before = all || known.current.id !== id ? [] : known.current.epochs;
      const found = await readHistory(id, before[before.length - 1]?.epoch ?? 0);
      known.current = { id, epochs: merged(before, found) };
      if (found.length || all) setHistory(known.current.epochs);
    } catch {
      // The next reading tries again; the page says above if the server cannot be reached.
    } finally {
      busy.current = false;
    }
  };
  useEffect(() => {
    void read(true); // a resumed training repeats epochs
  }, [id, attempts, live]);
  useInterval(() => live && void read(false), LIVE_MS);
  return history;
}
