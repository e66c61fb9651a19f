/** Where entries of a timeline lead, and what should come next. */

export interface TimelineEntry {
  id: string;
  at: string;
  kind: string;
  model_id: string | null;
  job_id: string | null;
  dataset: string | null;
  compared: string[] | null;
  report_url: string | null;
}

export type Destination =
  | { to: "report"; url: string }
  | { to: "job" | "model"; id: string }
  | { to: "data"; id: string }
  | null;

/** What one click on an entry opens: its report, or else what it is about. */
export function destination(entry: TimelineEntry): Destination {
  if (entry.report_url) return { to: "report", url: entry.report_url };
  if (entry.kind === "corrections" && entry.dataset) return { to: "data", id: entry.dataset.split("@")[0]! };
  if (["failed", "trained", "engine"].includes(entry.kind) && entry.job_id) return { to: "job", id: entry.job_id };
  if (entry.model_id && entry.kind !== "deleted") return { to: "model", id: entry.model_id };
  return entry.job_id ? { to: "job", id: entry.job_id } : null;
}

export interface Version {
  id: string;
  promoted: boolean;
  created_at: string;
}

export type Step = { kind: "promote"; candidate: string; promoted: string } | { kind: "train"; dataset: string } | { kind: "correct" };

/** What is to be done next for a name: decide on a newer version, learn from corrections, or correct. */
export function nextStep(entries: readonly TimelineEntry[], versions: readonly Version[]): Step {
  const promoted = versions.find((one) => one.promoted);
  const newest = [...versions].sort((a, b) => b.created_at.localeCompare(a.created_at))[0];
  const refused = entries.some((one) => one.kind === "refused" && one.model_id === newest?.id);
  if (promoted && newest && newest.created_at > promoted.created_at && !refused) {
    const wasPromoted = entries.some((one) => one.kind === "promoted" && one.model_id === newest.id);
    if (!wasPromoted) return { kind: "promote", candidate: newest.id, promoted: promoted.id };
  }
  const corrections = entries.find((one) => one.kind === "corrections");
  const trained = entries.find((one) => one.kind === "trained");
  if (corrections?.dataset && (!trained || corrections.at > trained.at)) return { kind: "train", dataset: corrections.dataset.split("@")[0]! };
  return { kind: "correct" };
}

/** Entries by the day of the reader's time zone, in the order in which they come. */
export function byDay<E extends { at: string }>(entries: readonly E[], day: (at: string) => string): [day: string, entries: E[]][] {
  const found: [string, E[]][] = [];
  for (const entry of entries) {
    const name = day(entry.at);
    const last = found.at(-1);
    if (last && last[0] === name) last[1].push(entry);
    else found.push([name, [entry]]);
  }
  return found;
}
