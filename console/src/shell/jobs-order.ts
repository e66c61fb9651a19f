/** The order of jobs, and how lists of them are brought up to date. */

export interface ActiveJob {
  job_id: string;
  status: string;
  queue_position: number | null;
  created_at: string;
}

/** Jobs that run, the oldest first, then those that wait, the next one first. */
export function inOrder<J extends ActiveJob>(jobs: readonly J[]): J[] {
  const place = (job: J) => (job.status === "queued" ? (job.queue_position ?? Number.MAX_SAFE_INTEGER) : 0);
  return [...jobs].sort((a, b) => place(a) - place(b) || a.created_at.localeCompare(b.created_at));
}

/** `jobs` with those of `news` in the place of what they replace. */
export function merged<J extends ActiveJob>(jobs: readonly J[], news: readonly J[]): J[] {
  const found = new Map(jobs.map((job) => [job.job_id, job]));
  for (const job of news) found.set(job.job_id, job);
  return [...found.values()];
}

export function without<J extends ActiveJob>(jobs: readonly J[], id: string): J[] {
  return jobs.filter((job) => job.job_id !== id);
}
