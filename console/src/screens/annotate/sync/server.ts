/** The routes that keep drafts: each call says how it ended, and never hides it. */
import { DECODING } from "../../../decoding.ts";
import { ApiError, Unreachable } from "../../../errors.ts";
import type { Shape } from "../engine/shape.ts";
import type { CommitAnswer, CommitOptions, DraftState } from "./types.ts";

export const TIMEOUT = 30_000; // milliseconds until an answer is taken for lost

/** The server answered with an error. */
export class Refused extends ApiError {
  override name = "Refused";
  /** Seconds after which the server wants to be asked again; null: it does not say. */
  readonly retryAfter: number | null;

  constructor(status: number, body: Record<string, unknown>, retryAfter: number | null = null) {
    super(status, body);
    this.retryAfter = retryAfter;
  }
}

/** No answer: the server is stopped, or the network is gone. */
export class Away extends Unreachable {
  override name = "Away";
}

export interface ImageAnswer {
  name: string;
  width: number;
  height: number;
  classes: string[];
  keypoint_names: string[];
  task: string;
  base: string;
  annotated: boolean;
  by: string | null;
  at: string | null;
  objects: Shape[];
  suggestions: Shape[];
}

export interface DraftAnswer {
  content: string;
  image: string;
  author: string;
  mine: boolean;
  state: DraftState;
  etag: string;
  base: string;
  reason: string;
  updated_at: string;
  object_count: number;
  objects: Shape[];
}

export type DraftRow = Omit<DraftAnswer, "objects">;

export interface QueueRow {
  image: string;
  content: string;
  source: "dataset" | "live";
  dataset_id: string | null;
  url: string;
  width: number;
  height: number;
  prelabels: number;
  reason: string;
  claimed_by: string | null;
  claimed_until: string | null;
  skipped_by: string | null;
  skip_reason: string | null;
}

export interface QueueAnswer {
  waiting: number;
  accepted: number;
  skipped: number;
  queue: QueueRow[];
}

export interface ServerOptions {
  /** The path that the server is reached under, without a slash at its end. */
  base: string;
  /** The annotator's name, for servers that do not know it by a token. */
  author: () => string;
  fetch?: typeof fetch;
  timeout?: number;
}

export class Server {
  private readonly options: ServerOptions;

  constructor(options: ServerOptions) {
    this.options = options;
  }

  /** The address of an image as browsers can show it; without the query it is the file itself. */
  imageUrl(dataset: string, content: string): string {
    return `${this.options.base}/api/datasets/${encodeURIComponent(dataset)}/pictures/${content}?as=browser&decoding=${DECODING}`;
  }

  image(dataset: string, content: string): Promise<ImageAnswer> {
    return this.call("GET", `${image(dataset, content)}/annotations`);
  }

  /** The caller's draft; null if there is none. */
  async draft(dataset: string, content: string): Promise<DraftAnswer | null> {
    try {
      return await this.call<DraftAnswer>("GET", `${image(dataset, content)}/draft`);
    } catch (error) {
      if (error instanceof Refused && error.status === 404) return null;
      throw error;
    }
  }

  drafts(dataset: string, query: Record<string, string> = {}): Promise<{ drafts: DraftRow[]; total: number; counts: Record<DraftState, number> }> {
    return this.call("GET", `/api/datasets/${encodeURIComponent(dataset)}/drafts?${new URLSearchParams(query).toString()}`);
  }

  put(
    dataset: string,
    content: string,
    draft: { objects: Shape[]; state: DraftState; base: string; reason: string },
    etag: string | null,
  ): Promise<DraftAnswer> {
    const seen: Record<string, string> = etag === null ? { "If-None-Match": "*" } : { "If-Match": etag };
    return this.call("PUT", `${image(dataset, content)}/draft`, draft, seen);
  }

  discard(dataset: string, content: string, etag: string): Promise<void> {
    return this.call("DELETE", `${image(dataset, content)}/draft`, undefined, { "If-Match": etag });
  }

  /** Make all drafts of another person the caller's, or delete them. */
  settle(dataset: string, author: string, how: "take-over" | "discard"): Promise<unknown> {
    return this.call("POST", `/api/datasets/${encodeURIComponent(dataset)}/drafts/${how}`, { author });
  }

  claim(dataset: string, count: number): Promise<{ queue: QueueRow[]; lease_seconds: number }> {
    return this.call("POST", "/api/annotation/queue/claim", { count, dataset });
  }

  queue(dataset: string, query: Record<string, string>): Promise<QueueAnswer> {
    return this.call("GET", `/api/annotation/queue?${new URLSearchParams({ dataset, ...query }).toString()}`);
  }

  unskip(contents: string[]): Promise<unknown> {
    return this.call("POST", "/api/annotation/queue/unskip", { contents });
  }

  skip(content: string, reason: string): Promise<unknown> {
    return this.call("POST", "/api/annotation/queue/skip", { content, reason });
  }

  release(contents: string[]): Promise<unknown> {
    return this.call("POST", "/api/annotation/queue/release", { contents });
  }

  commit(dataset: string, key: string, options: CommitOptions): Promise<CommitAnswer> {
    const body = { key, mine: options.mine ?? [], confirm: options.confirm ?? false };
    const query = options.dryRun ? "?dry_run=true" : "";
    return this.call("POST", `/api/datasets/${encodeURIComponent(dataset)}/drafts/commit${query}`, body, {}, 600_000);
  }

  private async call<T>(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
    timeout = this.options.timeout ?? TIMEOUT,
  ): Promise<T> {
    const control = new AbortController();
    const timer = setTimeout(() => control.abort(), timeout);
    let response: Response;
    let text: string;
    try {
      response = await (this.options.fetch ?? fetch)(this.options.base + path, {
        method,
        credentials: "same-origin",
        cache: "no-store",
        signal: control.signal,
        headers: {
          Accept: "application/json",
          "X-Annotator": encodeURIComponent(this.options.author()),
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          ...headers,
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      text = await response.text();
    } catch (error) {
      throw new Away(String(error));
    } finally {
      clearTimeout(timer);
    }
    const parsed = read(text);
    if (response.ok) return parsed as T;
    const after = Number(response.headers.get("Retry-After"));
    const fields = typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
    throw new Refused(response.status, fields, Number.isFinite(after) && after > 0 ? after : null);
  }
}

function image(dataset: string, content: string): string {
  return `/api/datasets/${encodeURIComponent(dataset)}/images/${encodeURIComponent(content)}`;
}

function read(text: string): unknown {
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null; // the page of a proxy in between; the status says enough
  }
}
