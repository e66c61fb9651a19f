/** Figures of the service from the steps of `/stats`. */

export interface Step {
  at: number;
  seconds: number;
  images_per_second: number;
  requests_per_second: number;
  p50_ms: number | null;
  p99_ms: number | null;
  batch_size: number | null;
  queued: number;
  errors: Record<string, number>;
  client_errors: number;
  server_errors: number;
}

/** The newest step in which there was something to measure. */
export function lastWith<S extends Step, K extends keyof S>(steps: readonly S[], name: K): S | undefined {
  for (let at = steps.length - 1; at >= 0; at -= 1) {
    const value = steps[at]![name];
    if (value !== null && value !== undefined) return steps[at];
  }
  return undefined;
}

/** Whether any value is a number. */
export function hasValues(values: readonly (number | null | undefined)[]): boolean {
  return values.some((value) => value !== null && value !== undefined);
}

/** Error responses of all steps by code, the most frequent first. */
export function errorsByCode(steps: readonly Step[]): [code: string, count: number][] {
  const found = new Map<string, number>();
  for (const step of steps) {
    for (const [code, count] of Object.entries(step.errors)) found.set(code, (found.get(code) ?? 0) + count);
  }
  return [...found].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
}

/** A number of a step as a rate a minute. */
export function perMinute(step: Step, count: number): number {
  return (60 * count) / step.seconds;
}

/** Processes of one kind are one row: their number, ids and memory together. */
export function byKind<P extends { kind: string; pid: number; resident_bytes: number }>(processes: readonly P[]): { kind: string; pids: number[]; bytes: number }[] {
  const found = new Map<string, { kind: string; pids: number[]; bytes: number }>();
  for (const one of processes) {
    const row = found.get(one.kind) ?? { kind: one.kind, pids: [], bytes: 0 };
    row.pids.push(one.pid);
    row.bytes += one.resident_bytes;
    found.set(one.kind, row);
  }
  return [...found.values()].sort((a, b) => b.bytes - a.bytes);
}
