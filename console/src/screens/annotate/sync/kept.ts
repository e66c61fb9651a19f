/** What this browser keeps until the server has confirmed it; it outlives a reload and a crash. */
import type { Pending } from "./types.ts";

const PREFIX = "visionloop.draft.";

/** The part of `Storage` that is used. */
export interface Storing {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** A key of one tab's work on one image; tabs do not write over each other. */
function keyOf(tab: string, dataset: string, content: string): string {
  return `${PREFIX}${tab}.${dataset}.${content}`;
}

export interface Found {
  key: string;
  pending: Pending;
}

/**
 * Unconfirmed work in the browser's storage, which writes at once. Where it is full or off, the
 * work stays in memory alone, and `full` says so.
 */
export class Kept {
  full = false;
  private readonly storage: Storing | null;
  private readonly tab: string;

  constructor(storage: Storing | null, tab: string) {
    this.storage = storage;
    this.tab = tab;
  }

  put(pending: Pending): void {
    const key = keyOf(this.tab, pending.dataset, pending.content);
    try {
      if (!this.storage) throw new Error("no storage");
      this.storage.setItem(key, JSON.stringify(pending));
      this.full = false;
    } catch {
      this.full = true; // an older version that is stored there stays: better than nothing
    }
  }

  remove(dataset: string, content: string): void {
    this.removeKey(keyOf(this.tab, dataset, content));
  }

  removeKey(key: string): void {
    try {
      this.storage?.removeItem(key);
    } catch {
      // It is sent again, which changes nothing.
    }
  }

  /** What tabs of before have left, the newest change of an image last. */
  left(): Found[] {
    const found: Found[] = [];
    try {
      const keys = Array.from({ length: this.storage?.length ?? 0 }, (_, at) => this.storage!.key(at));
      for (const key of keys) {
        if (!key?.startsWith(PREFIX) || key.startsWith(`${PREFIX}${this.tab}.`)) continue;
        const pending = parsed(this.storage!.getItem(key));
        if (pending) found.push({ key, pending });
      }
    } catch {
      return found;
    }
    return found.sort((one, other) => one.pending.changed - other.pending.changed);
  }
}

function parsed(text: string | null): Pending | null {
  if (!text) return null;
  try {
    const value = JSON.parse(text) as Pending;
    return typeof value.content === "string" && Array.isArray(value.objects) ? value : null;
  } catch {
    return null;
  }
}
