/** The server's events: one stream a tab, because a browser opens six connections a host. */
import { effect, signal } from "@preact/signals";
import { address } from "./api";
import { may, signIns } from "./session";

export type EventKind = "job" | "job_deleted" | "progress" | "model" | "dataset" | "reset";
type Listener = (data: Record<string, unknown>) => void;

/** Whether events arrive; false while the server cannot be reached. */
export const connected = signal(false);

const listeners = new Map<EventKind, Set<Listener>>();
const KINDS: EventKind[] = ["job", "job_deleted", "progress", "model", "dataset", "reset"];
let source: EventSource | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;
let opened = false;

/** Call `listener` at each event of a kind; returns what ends it. `reset`: read lists again. */
export function on(kind: EventKind, listener: Listener): () => void {
  const found = listeners.get(kind) ?? new Set();
  listeners.set(kind, found.add(listener));
  return () => found.delete(listener);
}

function tell(kind: EventKind, data: Record<string, unknown>): void {
  for (const listener of listeners.get(kind) ?? []) listener(data);
}

function open(): void {
  close();
  const stream = new EventSource(address("/events"));
  source = stream;
  stream.onopen = () => {
    connected.value = true;
    if (opened) tell("reset", {}); // what happened while the stream was broken
    opened = true;
  };
  stream.onerror = () => {
    connected.value = false;
    // The browser tries again by itself unless the answer was an error.
    if (stream.readyState === EventSource.CLOSED && source === stream) retry = setTimeout(open, 5000);
  };
  for (const kind of KINDS) {
    stream.addEventListener(kind, (event) => tell(kind, JSON.parse((event as MessageEvent<string>).data || "{}")));
  }
}

function close(): void {
  clearTimeout(retry);
  source?.close();
  source = null;
  connected.value = false;
}

/** Listen while the caller may use the server. */
export function startEvents(): void {
  effect(() => {
    void signIns.value;
    if (may("use")) open();
    else close();
  });
}
