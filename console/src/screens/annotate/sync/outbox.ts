/**
 * Work that the server has not confirmed: kept in this browser, sent, and sent again until it is.
 *
 * Of each image there is one entry. It is never dropped before the server has confirmed exactly
 * that version, and it never replaces a version on the server that this browser has not seen.
 */
import { signal, type Signal } from "@preact/signals";
import type { Shape } from "../engine/shape.ts";
import { digestOf, sendable } from "./digest.ts";
import type { Kept } from "./kept.ts";
import { Away, Refused, type DraftAnswer, type Server } from "./server.ts";
import type { DraftState, Pending, SaveState, Theirs } from "./types.ts";

export const QUIET = 400; // milliseconds without a change until a draft is sent
export const KEEP_AFTER = 100; // milliseconds after a change until it is in the browser's storage
export const LONGEST_PAUSE = 30_000; // milliseconds between two tries
const FIRST_PAUSE = 1000;
const OWN = 30; // digests of an image that are remembered

export interface Clock {
  now(): number;
  later(act: () => void, ms: number): () => void;
}

export const clock: Clock = {
  now: () => Date.now(),
  later: (act, ms) => {
    const timer = setTimeout(act, ms);
    return () => clearTimeout(timer);
  },
};

interface Entry {
  pending: Pending;
  /** Counts changes; what was sent is confirmed only if nothing changed meanwhile. */
  edit: number;
  dirty: boolean;
  due: number;
  /** Keys of other tabs' storage that this entry has taken over. */
  keys: string[];
  waiting: { done: () => void; fail: (error: unknown) => void }[];
  unkept?: () => void;
}

/** What is known of an image when it is opened. */
export interface Basis {
  dataset: string;
  content: string;
  name: string;
  base: string;
  draft: DraftAnswer | null;
  /** What is shown: of the draft, else what is stored. */
  objects: Shape[];
}

export interface Change {
  objects?: Shape[];
  state: DraftState;
  reason?: string;
}

export class Outbox {
  readonly state: Signal<SaveState> = signal("saved");
  readonly detail: Signal<string> = signal("");
  /** The entries that are not confirmed, for lists of them. */
  readonly pending: Signal<Pending[]> = signal([]);
  /** Whether the browser's storage is full or off: what is not confirmed is lost with the page. */
  readonly unkept: Signal<boolean> = signal(false);
  private readonly entries = new Map<string, Entry>();
  private readonly server: Server;
  private readonly kept: Kept;
  private readonly clock: Clock;
  private current = "";
  private trouble: "offline" | "signed-out" | null = null;
  private pause = 0;
  private notBefore = 0;
  private running: Promise<void> | null = null;
  private cancel: (() => void) | null = null;
  private readonly onSignedOut: () => void;

  constructor(server: Server, kept: Kept, time: Clock = clock, onSignedOut: () => void = () => undefined) {
    this.server = server;
    this.kept = kept;
    this.clock = time;
    this.onSignedOut = onSignedOut;
  }

  /** Take over what tabs of before have left, and send it. */
  recover(): void {
    for (const { key, pending } of this.kept.left()) {
      const id = idOf(pending.dataset, pending.content);
      const known = this.entries.get(id);
      if (known) {
        known.pending.own = [...new Set([...known.pending.own, ...pending.own])].slice(-OWN);
        known.keys.push(key);
        if (pending.changed < known.pending.changed) continue;
      }
      const entry: Entry = known ?? { pending, edit: 0, dirty: true, due: 0, keys: [key], waiting: [] };
      entry.pending = { ...pending, own: entry.pending.own };
      entry.edit += 1;
      entry.dirty = pending.blocked === null;
      this.entries.set(id, entry);
      this.kept.put(entry.pending);
    }
    this.tell();
    this.wake(0);
  }

  /** What is not confirmed of an image; null: nothing. */
  find(dataset: string, content: string): Pending | null {
    const entry = this.entries.get(idOf(dataset, content));
    return entry && this.isOpen(entry) ? entry.pending : null;
  }

  /** Images that need no more work here: accepted or skipped, and not refused. */
  done(dataset: string): Set<string> {
    const found = new Set<string>();
    for (const { pending } of this.entries.values()) {
      if (pending.dataset === dataset && pending.state !== "draft" && pending.blocked === null) found.add(pending.content);
    }
    return found;
  }

  /** How many of the done images the server does not know of yet. */
  unsent(dataset: string): number {
    const done = this.done(dataset);
    return [...this.entries.values()].filter((one) => one.dirty && one.pending.dataset === dataset && done.has(one.pending.content)).length;
  }

  /** Begin to work on an image that was read from the server. */
  show(basis: Basis): void {
    const id = idOf(basis.dataset, basis.content);
    this.current = id;
    const known = this.entries.get(id);
    if (!known || !this.isOpen(known)) {
      const draft = basis.draft;
      this.entries.set(id, {
        pending: {
          dataset: basis.dataset,
          content: basis.content,
          name: basis.name,
          objects: basis.objects.map(sendable),
          state: draft?.state ?? "draft",
          reason: draft?.reason ?? "",
          base: draft?.base ?? basis.base,
          etag: draft?.etag ?? null,
          own: known?.pending.own ?? [],
          changed: this.clock.now(),
          blocked: null,
          message: "",
          theirs: null,
        },
        edit: 0,
        dirty: false,
        due: 0,
        keys: [],
        waiting: [],
      });
    }
    this.tell();
  }

  /** Change the image that is shown. The promise ends when the server has confirmed it. */
  change(dataset: string, content: string, change: Change): Promise<void> {
    const entry = this.entries.get(idOf(dataset, content));
    if (!entry) return Promise.reject(new Error(`The image ${content} is not open.`));
    const pending = entry.pending;
    if (change.objects) pending.objects = change.objects.map(sendable);
    pending.state = change.state;
    pending.reason = change.reason ?? "";
    pending.changed = this.clock.now();
    pending.message = "";
    if (pending.blocked === "refused") pending.blocked = null;
    entry.edit += 1;
    entry.dirty = pending.blocked === null;
    entry.due = this.clock.now() + (change.state === "draft" ? QUIET : 0);
    this.keepSoon(entry, change.state === "draft" ? KEEP_AFTER : 0);
    this.tell();
    this.wake(entry.due - this.clock.now());
    return new Promise((done, fail) => entry.waiting.push({ done, fail }));
  }

  /** Stop at a conflict that was seen otherwise: what is stored is by somebody else. */
  block(dataset: string, content: string, theirs: Theirs): void {
    const entry = this.entries.get(idOf(dataset, content));
    if (entry) this.conflict(entry, theirs, "");
  }

  /** Decide a conflict: one's own replaces theirs, or is dropped. */
  async resolve(how: "mine" | "theirs"): Promise<void> {
    const entry = this.entries.get(this.current);
    if (!entry || entry.pending.blocked !== "conflict") return;
    const pending = entry.pending;
    if (how === "mine") {
      pending.etag = pending.theirs?.etag ?? pending.etag;
      pending.base = pending.theirs?.base ?? pending.base;
      this.unblock(entry);
      await this.flush();
      return;
    }
    if (pending.theirs?.base !== undefined && pending.etag !== null) {
      // They have stored theirs; the draft alone stands against it.
      await this.server.discard(pending.dataset, pending.content, pending.etag);
    }
    this.forget(entry);
    this.tell();
  }

  /** Send everything now. Ends when all is confirmed, or cannot be for now. */
  async flush(): Promise<void> {
    for (const entry of this.entries.values()) {
      entry.due = 0;
      if (entry.unkept) this.keepSoon(entry, 0);
    }
    this.notBefore = 0;
    this.cancel?.();
    this.cancel = null;
    await this.run();
  }

  /** Try again at once: the network is back, or somebody has signed in. */
  retry(): void {
    this.pause = 0;
    this.notBefore = 0;
    for (const entry of this.entries.values()) if (entry.pending.blocked === "refused") this.unblock(entry);
    this.wake(0);
  }

  /** Write everything to the browser's storage; the page may go. */
  keepNow(): void {
    for (const entry of this.entries.values()) if (entry.unkept) this.keepSoon(entry, 0);
  }

  // --- private

  private isOpen(entry: Entry): boolean {
    return entry.dirty || entry.pending.blocked !== null;
  }

  private keepSoon(entry: Entry, ms: number): void {
    if (ms > 0) {
      entry.unkept ??= this.clock.later(() => this.keepSoon(entry, 0), ms);
      return;
    }
    entry.unkept?.();
    entry.unkept = undefined;
    if (!this.isOpen(entry)) return;
    note(entry.pending);
    this.kept.put(entry.pending);
  }

  private wake(ms: number): void {
    const wait = Math.max(0, ms, this.notBefore - this.clock.now());
    this.cancel?.();
    this.cancel = this.clock.later(() => {
      this.cancel = null;
      void this.run();
    }, wait);
  }

  private run(): Promise<void> {
    this.running ??= this.sendAll().finally(() => {
      this.running = null;
      this.tell();
    });
    return this.running;
  }

  private async sendAll(): Promise<void> {
    for (;;) {
      const now = this.clock.now();
      if (now < this.notBefore) return this.wake(0);
      const open = [...this.entries.values()].filter((entry) => entry.dirty);
      const entry = open.find((one) => one.due <= now);
      if (!entry) {
        if (open.length) this.wake(Math.min(...open.map((one) => one.due)) - now);
        return;
      }
      if (!(await this.send(entry))) return this.wake(0);
    }
  }

  /** Send an entry. Returns whether to go on with others. */
  private async send(entry: Entry): Promise<boolean> {
    const { edit, pending } = entry;
    this.keepSoon(entry, 0);
    const sent = { objects: pending.objects, state: pending.state, base: pending.base, reason: pending.reason };
    try {
      const draft = await this.server.put(pending.dataset, pending.content, sent, pending.etag);
      this.reached();
      pending.etag = draft.etag;
      pending.base = draft.base; // another one after our own commit
      if (pending.state === "skipped" && entry.edit === edit) await this.server.skip(pending.content, pending.reason);
      if (entry.edit === edit) this.confirmed(entry);
      return true;
    } catch (error) {
      return this.failed(entry, edit, error);
    }
  }

  private confirmed(entry: Entry): void {
    entry.dirty = false;
    this.kept.remove(entry.pending.dataset, entry.pending.content);
    for (const key of entry.keys.splice(0)) this.kept.removeKey(key);
    for (const { done } of entry.waiting.splice(0)) done();
    this.tell();
  }

  private async failed(entry: Entry, edit: number, error: unknown): Promise<boolean> {
    if (error instanceof Away) return this.later("offline", null);
    if (!(error instanceof Refused)) throw error;
    const pending = entry.pending;
    if (error.status === 401) {
      this.onSignedOut();
      return this.later("signed-out", null);
    }
    if (error.status === 429 || error.status >= 500) return this.later("offline", error.retryAfter);
    this.reached();
    if (error.status === 412) return this.overtaken(entry, error);
    if (error.status === 400 && pending.state !== "draft" && entry.edit === edit) {
      // What cannot be stored is kept as a draft, and the reason is said.
      pending.state = "draft";
      entry.edit += 1;
      this.keepSoon(entry, 0);
      for (const { fail } of entry.waiting.splice(0)) fail(error);
      pending.message = error.message;
      return true;
    }
    pending.blocked = "refused";
    pending.message = error.message;
    entry.dirty = false;
    this.kept.put(pending);
    for (const { fail } of entry.waiting.splice(0)) fail(error);
    this.tell();
    return true;
  }

  /** The server has another version: this browser's own of before, or somebody else's. */
  private async overtaken(entry: Entry, error: Refused): Promise<boolean> {
    const pending = entry.pending;
    let found: DraftAnswer | null;
    try {
      found = error.body.current === null ? null : await this.server.draft(pending.dataset, pending.content);
    } catch (again) {
      return this.failed(entry, entry.edit, again);
    }
    if (!found) {
      const image = await this.server.image(pending.dataset, pending.content).catch(() => null);
      if (!image) return this.later("offline", null);
      pending.etag = null; // it was committed or discarded; ours is a new one
      if (pending.own.includes(digestOf(image.objects, "accepted"))) {
        pending.base = image.base; // our own commit
      } else if (image.base !== pending.base && image.by !== null) {
        this.conflict(entry, { author: image.by, at: image.at, etag: null, base: image.base }, error.message);
      }
      return true;
    }
    if (pending.own.includes(digestOf(found.objects, found.state))) {
      pending.etag = found.etag; // its answer was lost, or another window of ours has sent it
      return true;
    }
    this.conflict(entry, { author: found.author, at: found.updated_at, etag: found.etag }, error.message);
    return true;
  }

  private conflict(entry: Entry, theirs: Theirs, message: string): void {
    const pending = entry.pending;
    pending.blocked = "conflict";
    pending.theirs = theirs;
    pending.message = message;
    entry.dirty = false;
    this.kept.put(pending);
    this.tell();
  }

  private unblock(entry: Entry): void {
    entry.pending.blocked = null;
    entry.pending.theirs = null;
    entry.pending.message = "";
    entry.dirty = true;
    entry.due = 0;
    entry.edit += 1;
    this.keepSoon(entry, 0);
    this.tell();
  }

  private forget(entry: Entry): void {
    const { dataset, content } = entry.pending;
    entry.unkept?.();
    for (const { done } of entry.waiting) done();
    this.entries.delete(idOf(dataset, content));
    this.kept.remove(dataset, content);
    for (const key of entry.keys) this.kept.removeKey(key);
  }

  private reached(): void {
    this.trouble = null;
    this.pause = 0;
    this.notBefore = 0;
  }

  private later(trouble: "offline" | "signed-out", seconds: number | null): boolean {
    this.trouble = trouble;
    this.pause = Math.min(LONGEST_PAUSE, this.pause ? this.pause * 2 : FIRST_PAUSE);
    this.notBefore = this.clock.now() + Math.max(this.pause, (seconds ?? 0) * 1000);
    this.tell();
    return false;
  }

  private tell(): void {
    const open = [...this.entries.values()].filter((entry) => this.isOpen(entry));
    const here = this.entries.get(this.current)?.pending;
    this.pending.value = open.map((entry) => ({ ...entry.pending }));
    this.unkept.value = this.kept.full && open.length > 0;
    const blocked = open.map((entry) => entry.pending).filter((pending) => pending.blocked);
    if (here?.blocked === "conflict") return this.say("conflict", theirsOf(here));
    if (this.trouble && open.some((entry) => entry.dirty)) return this.say(this.trouble, "");
    if (blocked.length) return this.say("error", blocked.map((one) => `${one.name}: ${one.message || theirsOf(one)}`).join("\n"));
    if (open.length) return this.say("saving", "");
    this.say(here?.message ? "error" : "saved", here?.message ?? "");
  }

  private say(state: SaveState, detail: string): void {
    this.state.value = state;
    this.detail.value = detail;
  }
}

function idOf(dataset: string, content: string): string {
  return `${dataset}/${content}`;
}

/** Note what is about to be sent, so that it is known again on the server. */
function note(pending: Pending): void {
  const digest = digestOf(pending.objects, pending.state);
  if (pending.own.at(-1) !== digest) pending.own = [...pending.own, digest].slice(-OWN);
}

function theirsOf(pending: Pending): string {
  const theirs = pending.theirs;
  return theirs ? [theirs.author, theirs.at].filter(Boolean).join(", ") : "";
}
