/** The work on a dataset: which image is open, its editor, and the way to the next one. */
import { signal, type Signal } from "@preact/signals";
import { notifyError } from "../../components/Toast";
import { remember, remembered } from "../../remembered";
import { navigate } from "../../router";
import { session } from "../../session";
import { Clipboard } from "./engine/clipboard";
import { Editor, type Tool } from "./engine/editor";
import type { Shape } from "./engine/shape";
import { decoded } from "./images";
import { author, type Loaded } from "./sync";
import type { Drafts } from "./sync/drafts";

const THRESHOLD = 0.25; // the lowest score of the band "review", where a dataset has no other

export type Phase = "opening" | "ready" | "empty" | "failed";

export interface Opened {
  loaded: Loaded;
  editor: Editor;
  image: HTMLImageElement;
}

/** A short name for a new object, unlike all others. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `c${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export class Work {
  readonly store: Drafts;
  readonly dataset: string;
  readonly phase: Signal<Phase> = signal("opening");
  readonly opened: Signal<Opened | null> = signal(null);
  readonly error: Signal<unknown> = signal(undefined);
  private readonly clipboard = new Clipboard();
  private previous: readonly Shape[] = [];
  private turn = 0; // the newest request for an image; older ones that answer late are dropped
  private read: () => Promise<Loaded | null> = () => Promise.resolve(null);
  /** The image that was read; it may be one that the browser cannot show. */
  private current: Loaded | null = null;
  /** The next image is on its way: what is shown takes no more edits. */
  readonly going: Signal<boolean> = signal(false);
  private tool: Tool = "select";
  private currentClass = "";

  constructor(dataset: string, store: Drafts) {
    this.dataset = dataset;
    this.store = store;
  }

  /** Open an image, or without a content the first of the queue. */
  async open(content: string | undefined): Promise<void> {
    if (content !== undefined && this.opened.value?.loaded.content === content) return;
    this.keep();
    await this.show(() => (content ? this.store.open(this.dataset, content) : this.store.next(this.dataset)));
  }

  /** Open the image again, as the server has it now. */
  async reopen(): Promise<void> {
    const content = this.opened.value?.loaded.content;
    if (content) await this.show(() => this.store.open(this.dataset, content));
  }

  /** Try again what failed. */
  retry(): Promise<void> {
    return this.show(this.read);
  }

  private async show(read: () => Promise<Loaded | null>): Promise<void> {
    const turn = ++this.turn;
    this.read = read;
    this.current = null;
    if (this.phase.value !== "ready") this.phase.value = "opening";
    this.error.value = undefined;
    try {
      const loaded = await read();
      if (turn !== this.turn) return;
      if (!loaded) {
        this.opened.value = null;
        this.phase.value = "empty";
        navigate(["annotate", this.dataset], {}, true);
        return;
      }
      this.current = loaded;
      const image = await decoded(loaded.imageUrl);
      if (turn !== this.turn) return;
      this.put(loaded, image);
    } catch (error) {
      if (turn !== this.turn) return;
      this.opened.value = null;
      this.error.value = error;
      this.phase.value = "failed";
    }
  }

  private put(loaded: Loaded, image: HTMLImageElement): void {
    const threshold = Number(remembered("annotate.threshold") ?? THRESHOLD);
    const editor = new Editor(loaded, {
      by: session.value?.who ?? author(),
      newId,
      clipboard: this.clipboard,
      threshold: Number.isFinite(threshold) ? threshold : THRESHOLD,
      // What a person has annotated is not mixed with predictions unless they are asked for.
      suggestionsShown: !loaded.annotated,
      currentClass: this.currentClass,
      tool: this.tool === "polygon" ? "select" : this.tool,
    });
    if (this.tool === "polygon") editor.setTool("polygon");
    editor.onChange((change) => {
      if (change === "items" && !this.going.value) this.store.save(editor.objects);
      if (change === "suggestions") remember("annotate.threshold", String(editor.threshold));
    });
    this.opened.value = { loaded, editor, image };
    this.phase.value = "ready";
    navigate(["annotate", this.dataset, loaded.content]);
    this.store.prefetch();
  }

  /** Keep what goes on from image to image. */
  private keep(): void {
    const editor = this.opened.value?.editor;
    if (!editor) return;
    this.previous = editor.objects;
    this.tool = editor.tool;
    this.currentClass = editor.currentClass;
  }

  /** What is shown is right: accept it and show the next image. */
  accept(): Promise<void> {
    return this.leave((editor) => {
      if (editor) this.store.save(editor.confirm());
      return this.store.accept();
    });
  }

  /** Checked, nothing here. */
  nothing(): Promise<void> {
    return this.leave((editor) => {
      editor?.clear();
      this.store.save([]);
      return this.store.accept();
    });
  }

  /** Leave it to others, or for later; also an image that cannot be shown. */
  skip(): Promise<void> {
    return this.leave(() => this.store.skip());
  }

  get canSkip(): boolean {
    return this.current !== null;
  }

  /** The next image is shown while the server is told of this one; what fails is said. */
  private async leave(act: (editor: Editor | undefined) => Promise<void>): Promise<void> {
    if (!this.current || this.going.value) return;
    this.going.value = true;
    try {
      act(this.opened.value?.editor).catch(notifyError);
      this.keep();
      await this.show(() => this.store.next(this.dataset));
    } finally {
      this.going.value = false;
    }
  }

  pastePrevious(): void {
    this.opened.value?.editor.pasteShapes(this.previous);
  }
}
