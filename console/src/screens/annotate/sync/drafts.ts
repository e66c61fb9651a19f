/** The store of drafts that the annotator works with: images in, work out, nothing lost. */
import { signal, type Signal } from "@preact/signals";
import type { Shape } from "../engine/shape.ts";
import type { Outbox } from "./outbox.ts";
import { Away, Refused, type QueueRow, type Server } from "./server.ts";
import type { CommitAnswer, CommitOptions, Loaded, Pending, SaveState } from "./types.ts";

const AHEAD = 2; // images that are there before they are asked for
const FRESH = 5 * 60_000; // milliseconds after which an image that was fetched ahead is read again

interface Ready {
  loaded: Promise<Opened>;
  at: number;
}

interface Opened {
  shown: Loaded;
  basis: Parameters<Outbox["show"]>[0];
  /** Who has stored other annotations since the draft was begun. */
  overtaken: { author: string; at: string | null; base: string } | null;
}

export interface DraftsOptions {
  server: Server;
  outbox: Outbox;
  /** Have an image decoded, so that it is shown at once. */
  prepare: (url: string) => Promise<unknown>;
  /** A name for a commit, unlike all others. */
  newKey: () => string;
  /** What is kept beyond a reload: the key of a commit whose answer has not come. */
  keys: { get(name: string): string | null; set(name: string, value: string | null): void };
  now?: () => number;
}

export class Drafts {
  readonly state: Signal<SaveState>;
  readonly detail: Signal<string>;
  readonly pending: Signal<Pending[]>;
  readonly unkept: Signal<boolean>;
  /** Counts how often an image was replaced by what the server has: it is to be opened again. */
  readonly replaced: Signal<number> = signal(0);
  private readonly options: DraftsOptions;
  private readonly ready = new Map<string, Ready>();
  private current: Loaded | null = null;
  private dataset = "";
  private ahead: Promise<void> | null = null;

  constructor(options: DraftsOptions) {
    this.options = options;
    this.state = options.outbox.state;
    this.detail = options.outbox.detail;
    this.pending = options.outbox.pending;
    this.unkept = options.outbox.unkept;
  }

  /** Open an image, with what was drawn on it before. */
  async open(dataset: string, content: string): Promise<Loaded> {
    this.dataset = dataset;
    return this.show(await this.read(dataset, content));
  }

  /** Keep what is drawn now. */
  save(objects: Shape[]): void {
    if (!this.current) return;
    const { dataset, content } = this.current;
    this.options.outbox.change(dataset, content, { objects, state: "draft" }).catch(() => undefined); // `state` says it
  }

  /** The image is done. The promise ends when the server has it; it fails if it cannot be stored. */
  accept(): Promise<void> {
    return this.finish("accepted", "");
  }

  /** Leave the image to others, or for later; what was drawn stays. */
  skip(reason = ""): Promise<void> {
    return this.finish("skipped", reason);
  }

  private finish(state: "accepted" | "skipped", reason: string): Promise<void> {
    if (!this.current) return Promise.resolve();
    const { dataset, content } = this.current;
    return this.options.outbox.change(dataset, content, { state, reason });
  }

  /** The next image of the queue; null: there is none. */
  async next(dataset: string = this.dataset): Promise<Loaded | null> {
    if (dataset !== this.dataset) this.ready.clear();
    this.dataset = dataset;
    const done = this.options.outbox.done(dataset);
    for (const [content, { at }] of this.ready) {
      if (done.has(content) || content === this.current?.content) continue;
      if (this.now() - at < FRESH) return this.show(await this.take(dataset, content));
    }
    for (const row of await this.claim()) {
      if (!done.has(row.content) && row.content !== this.current?.content) {
        return this.show(await this.take(dataset, row.content));
      }
    }
    return null;
  }

  /** Have the next images there before they are asked for. */
  prefetch(): void {
    this.ahead ??= this.fetchAhead()
      .catch(() => undefined) // `next` says what is wrong, if it still is
      .finally(() => (this.ahead = null));
  }

  /** Send everything now. */
  flush(): Promise<void> {
    return this.options.outbox.flush();
  }

  /** Decide a conflict. After `theirs` the image is to be opened again: `replaced` says so. */
  async resolve(how: "mine" | "theirs"): Promise<void> {
    await this.options.outbox.resolve(how);
    if (how === "mine" || !this.current) return;
    this.ready.delete(this.current.content);
    this.replaced.value += 1;
  }

  /** Make a revision of what is accepted, or in a dry run say what it would be. */
  async commit(dryRun: boolean, options: Omit<CommitOptions, "dryRun"> = {}, dataset = this.dataset): Promise<CommitAnswer> {
    await this.flush();
    return commit(this.options, dataset, { ...options, dryRun });
  }

  // --- private

  private now(): number {
    return (this.options.now ?? Date.now)();
  }

  private show(opened: Opened): Loaded {
    const { dataset, content } = opened.shown;
    this.ready.delete(content);
    this.options.outbox.show(opened.basis);
    const unsent = this.options.outbox.find(dataset, content);
    const shown = unsent ? { ...opened.shown, objects: unsent.objects, base: unsent.base, annotated: true } : opened.shown;
    if (opened.overtaken && !unsent) {
      const { author, at, base } = opened.overtaken;
      this.options.outbox.block(dataset, content, { author, at, etag: opened.basis.draft?.etag ?? null, base });
    }
    this.current = shown;
    return shown;
  }

  private take(dataset: string, content: string): Promise<Opened> {
    const ready = this.ready.get(content);
    this.ready.delete(content);
    return ready && this.now() - ready.at < FRESH ? ready.loaded : this.read(dataset, content);
  }

  /** The image that is open, and those ahead: no more, because others wait for them. */
  private async claim(): Promise<QueueRow[]> {
    const count = 1 + AHEAD + this.options.outbox.unsent(this.dataset);
    const found = await this.options.server.claim(this.dataset, Math.min(50, count));
    return found.queue.filter((row) => row.source === "dataset");
  }

  private async fetchAhead(): Promise<void> {
    const dataset = this.dataset;
    const done = this.options.outbox.done(dataset);
    const rows = await this.claim();
    for (const row of rows) {
      const { content } = row;
      if (dataset !== this.dataset || this.ready.size >= AHEAD) return;
      if (done.has(content) || content === this.current?.content || this.ready.has(content)) continue;
      const loaded = this.read(dataset, content).then(async (opened) => {
        await this.options.prepare(opened.shown.imageUrl).catch(() => undefined); // the annotator says it
        return opened;
      });
      this.ready.set(content, { loaded, at: this.now() });
      await loaded.catch(() => this.ready.delete(content));
    }
  }

  private async read(dataset: string, content: string): Promise<Opened> {
    const { server } = this.options;
    const [image, all] = await Promise.all([server.image(dataset, content), server.drafts(dataset, { content })]);
    // Asked for only if there is one: browsers log a 404 as an error.
    const draft = all.drafts.some((one) => one.mine) ? await server.draft(dataset, content) : null;
    const other = all.drafts.find((one) => !one.mine && one.state !== "skipped");
    const isBehind = draft !== null && draft.base !== image.base && image.by !== null;
    const shown: Loaded = {
      dataset,
      content,
      name: image.name,
      width: image.width,
      height: image.height,
      imageUrl: server.imageUrl(dataset, content),
      classes: image.classes,
      keypointNames: image.keypoint_names,
      task: image.task,
      objects: draft?.objects ?? image.objects,
      suggestions: image.suggestions,
      base: draft?.base ?? image.base,
      annotated: image.annotated || draft !== null,
      ...(other ? { draftOf: other.author } : {}),
    };
    return {
      shown,
      basis: { dataset, content, name: image.name, base: image.base, draft, objects: shown.objects },
      overtaken: isBehind ? { author: image.by ?? "", at: image.at, base: image.base } : null,
    };
  }
}

/**
 * Commit the accepted drafts of a dataset. The commit has a name that outlives a lost answer, so
 * that trying again makes no second revision.
 */
export async function commit(
  { server, newKey, keys }: Pick<DraftsOptions, "server" | "newKey" | "keys">,
  dataset: string,
  options: CommitOptions,
): Promise<CommitAnswer> {
  if (options.dryRun) return server.commit(dataset, newKey(), options);
  const name = `commit.${dataset}`;
  const key = keys.get(name) ?? newKey();
  keys.set(name, key);
  try {
    const answer = await server.commit(dataset, key, options);
    keys.set(name, null);
    return answer;
  } catch (error) {
    const isOpen = error instanceof Away || (error instanceof Refused && (error.status >= 500 || error.status === 401));
    if (!isOpen) keys.set(name, null); // it was refused: the next one is another
    throw error;
  }
}
