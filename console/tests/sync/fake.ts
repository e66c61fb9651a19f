/** A server of drafts in memory, a browser's storage, and a clock that tests move. */
import { newShape, type Shape } from "../../src/screens/annotate/engine/shape.ts";
import { Drafts } from "../../src/screens/annotate/sync/drafts.ts";
import { Kept, type Storing } from "../../src/screens/annotate/sync/kept.ts";
import { Outbox, type Clock } from "../../src/screens/annotate/sync/outbox.ts";
import { Server } from "../../src/screens/annotate/sync/server.ts";

export const ONE = "1".repeat(64);
export const TWO = "2".repeat(64);
export const THREE = "3".repeat(64);

export class Memory implements Storing {
  values = new Map<string, string>();
  full = false;
  get length(): number {
    return this.values.size;
  }
  key(index: number): string | null {
    return [...this.values.keys()][index] ?? null;
  }
  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    if (this.full) throw new DOMException("full", "QuotaExceededError");
    this.values.set(key, value);
  }
  removeItem(key: string): void {
    this.values.delete(key);
  }
}

export class Time implements Clock {
  at = 1_000_000;
  private timers: { at: number; act: () => void }[] = [];
  now(): number {
    return this.at;
  }
  later(act: () => void, ms: number): () => void {
    const timer = { at: this.at + ms, act };
    this.timers.push(timer);
    return () => (this.timers = this.timers.filter((one) => one !== timer));
  }
  /** Let time pass, and everything happen that is due in it. */
  async pass(ms: number): Promise<void> {
    const end = this.at + ms;
    for (;;) {
      await settle();
      const due = this.timers.filter((one) => one.at <= end).sort((one, other) => one.at - other.at)[0];
      if (!due) break;
      this.timers = this.timers.filter((one) => one !== due);
      this.at = Math.max(this.at, due.at);
      due.act();
    }
    this.at = end;
    await settle();
  }
}

/** Let all promises that can end do so. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

interface Stored {
  objects: Shape[];
  state: string;
  base: string;
  reason: string;
  version: number;
  author: string;
}

/** What the routes of drafts do, as far as clients see it. */
export class Fake {
  drafts = new Map<string, Stored>();
  stored = new Map<string, { base: string; by: string; objects: Shape[] }>();
  skipped = new Set<string>();
  calls: string[] = [];
  /** What the next calls meet instead of an answer. */
  trouble: ("away" | "lost" | number)[] = [];
  away = false;
  signedOut = false;
  refuseAccepted = "";
  queue = [ONE, TWO, THREE];
  /** How many images each claim was about. */
  claimed: number[] = [];
  commits = new Map<string, unknown>();
  /** Bases that the author's own commits have replaced. */
  replaced = new Map<string, string>();
  private versions = 0;

  fetch = async (input: RequestInfo | URL, options: RequestInit = {}): Promise<Response> => {
    const url = String(input);
    const method = options.method ?? "GET";
    this.calls.push(`${method} ${url}`);
    const trouble = this.away ? "away" : this.trouble.shift();
    if (trouble === "away") throw new TypeError("Failed to fetch");
    if (typeof trouble === "number") return reply(trouble, { code: "X", message: `a ${trouble}` });
    if (this.signedOut) return reply(401, { code: "UNAUTHORIZED", message: "Sign in." });
    const found = this.answer(method, url, options);
    if (trouble === "lost") throw new TypeError("the connection was lost after the server had acted");
    return found;
  };

  count(method: string, part: string): number {
    return this.calls.filter((call) => call.startsWith(method) && call.includes(part)).length;
  }

  /** Somebody else, or another window, stores a draft. */
  write(content: string, author: string, objects: Shape[], state = "draft"): Stored {
    this.versions += 1;
    const found = { objects, state, base: this.baseOf(content), reason: "", version: this.versions, author };
    this.drafts.set(content, found);
    return found;
  }

  private baseOf(content: string): string {
    return this.stored.get(content)?.base ?? "none";
  }

  private answer(method: string, url: string, options: RequestInit): Response {
    const headers = new Headers(options.headers);
    const body = options.body ? JSON.parse(String(options.body)) : {};
    const content = /images\/([0-9]{64})\//.exec(url)?.[1] ?? "";
    const found = this.drafts.get(content);
    if (url.includes("/annotations")) {
      const stored = this.stored.get(content);
      return reply(200, {
        name: `${content[0]}.png`, width: 60, height: 40, classes: ["car"], keypoint_names: [], task: "detect",
        base: this.baseOf(content), annotated: Boolean(stored), by: stored?.by ?? null, at: stored ? "2026-01-01" : null,
        objects: stored?.objects ?? [], suggestions: [],
      }); // prettier-ignore
    }
    if (url.endsWith("/draft") && method === "GET") return found ? reply(200, this.shown(content, found)) : reply(404, { code: "NOT_FOUND" });
    if (url.endsWith("/draft") && method === "PUT") return this.put(content, found, headers, body);
    if (url.endsWith("/draft") && method === "DELETE") {
      if (found && headers.get("If-Match") !== `"${found.version}"`) return this.conflict(found);
      this.drafts.delete(content);
      return new Response(null, { status: 204 });
    }
    if (url.includes("/drafts/commit")) {
      if (!this.commits.has(body.key)) this.commits.set(body.key, { revision: this.commits.size + 1 });
      return reply(201, this.commits.get(body.key));
    }
    if (url.includes("/drafts")) {
      const asked = new URL(url, "http://host").searchParams.get("content") ?? "";
      const one = this.drafts.get(asked);
      return reply(200, { drafts: one ? [this.shown(asked, one)] : [], total: one ? 1 : 0, counts: {} });
    }
    if (url.endsWith("/queue/claim")) {
      this.claimed.push(body.count);
      const accepted = (one: string) => this.drafts.get(one)?.state === "accepted" || this.skipped.has(one);
      const rows = this.queue.filter((one) => !accepted(one)).slice(0, body.count);
      return reply(200, { lease_seconds: 600, queue: rows.map((one) => ({ content: one, source: "dataset" })) });
    }
    if (url.endsWith("/queue/skip")) {
      this.skipped.add(body.content);
      return reply(200, { images: 1 });
    }
    throw new Error(`no route ${method} ${url}`);
  }

  private put(content: string, found: Stored | undefined, headers: Headers, body: Stored): Response {
    const same = found && JSON.stringify([found.objects, found.state, found.base, found.reason]) === JSON.stringify([body.objects, body.state, body.base, body.reason]);
    if (same) return reply(200, this.shown(content, found));
    const seen = headers.get("If-Match");
    if (seen === null && headers.get("If-None-Match") !== "*") return reply(428, { code: "PRECONDITION_REQUIRED" });
    if (found ? seen !== `"${found.version}"` : seen !== null) return found ? this.conflict(found) : reply(412, { code: "PRECONDITION_FAILED", message: "gone", current: null });
    if (body.state === "accepted" && this.refuseAccepted) return reply(400, { code: "VALIDATION_ERROR", message: this.refuseAccepted });
    this.versions += 1;
    const made = { ...body, base: this.replaced.get(body.base) ?? body.base, version: this.versions, author: decodeURIComponent(headers.get("X-Annotator") ?? "") };
    this.drafts.set(content, made);
    return reply(200, this.shown(content, made));
  }

  private conflict(found: Stored): Response {
    return reply(412, { code: "PRECONDITION_FAILED", message: "changed", current: { author: found.author, etag: `"${found.version}"` } });
  }

  private shown(content: string, found: Stored): unknown {
    return { ...found, content, etag: `"${found.version}"`, mine: true, updated_at: "2026-01-01", image: content };
  }
}

function reply(status: number, body: unknown): Response {
  return new Response(JSON.stringify(body), { status });
}

export function box(label: string, id = "a"): Shape {
  return { ...newShape(id, label, "ann"), box: [1, 2, 30, 20] };
}

/** A page with a store; pages of one browser share its storage. */
export function page(fake: Fake, memory = new Memory(), tab = "t1", time = new Time()) {
  const server = new Server({ base: "/prefix", author: () => "Ann 安", fetch: fake.fetch });
  const outbox = new Outbox(server, new Kept(memory, tab), time);
  outbox.recover();
  const prepared: string[] = [];
  const keys = new Map<string, string>();
  let key = 0;
  const drafts = new Drafts({
    server,
    outbox,
    prepare: async (url) => prepared.push(url),
    newKey: () => `key-${(key += 1)}`,
    keys: { get: (name) => keys.get(name) ?? null, set: (name, value) => (value === null ? keys.delete(name) : keys.set(name, value)) },
    now: () => time.at,
  });
  return { drafts, outbox, time, memory, prepared, keys };
}
