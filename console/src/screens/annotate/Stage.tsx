/** The image with its shapes: the image and the canvas beneath, the selected shapes above as SVG. */
import { useEffect, useRef } from "preact/hooks";
import { classColour } from "../../colours";
import { text } from "./text";
import type { Editor, PressOptions } from "./engine/editor";
import { overlayOf, REACH } from "./engine/overlay";
import { changedPart, paint, tagOf } from "./engine/scene";
import { boundsOf, kindOf, type Box, type Item, type Point, type Size } from "./engine/shape";
import { canvasSize, centred, fit, pan, reveal, shown, toImage, toStage, zoomAt, type View } from "./engine/view";

const SLACK = 3; // CSS pixels that a click may move
const STEP = 1.25; // a zoom key
const EDGE = 160; // CSS pixels that the canvas reaches beyond the stage on each side
const LIGHT = 120; // up to so many shapes each frame is painted anew; more are moved as one picture
const REST = 120; // milliseconds without a change after which the shapes are painted sharply
const SHARP = 3; // from this zoom on, pixels are seen as squares

/** What keys and buttons do with the view. */
export interface StageControl {
  fit: () => void;
  actual: () => void;
  zoom: (steps: number) => void;
  pan: (dx: number, dy: number) => void;
  /** Bring the selected shapes into view; closely, if asked. */
  reveal: (closely?: boolean) => void;
  focus: () => void;
  space: (down: boolean) => void;
  /** CSS pixels of one pixel of the image. */
  scale: () => number;
}

export interface StageProps {
  editor: Editor;
  image: HTMLImageElement;
  name: string;
  control: { current: StageControl | null };
  onZoom: (scale: number) => void;
}

export function Stage({ editor, image, name, control, onZoom }: StageProps) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const svg = useRef<SVGSVGElement>(null);
  const place = useRef<HTMLDivElement>(null);
  const t = text();
  useEffect(() => {
    const elements = { box: box.current!, canvas: canvas.current!, svg: svg.current!, place: place.current! };
    const stage = new StageView(elements, editor, image, onZoom);
    control.current = stage;
    return () => {
      control.current = null;
      stage.end();
    };
  }, [editor, image]);
  return (
    <div class="annotate-stage" ref={box} tabIndex={0} role="application" aria-label={t.stage(name)} aria-roledescription={t.stageRole} aria-keyshortcuts="?">
      <div ref={place} class="annotate-image" />
      <canvas ref={canvas} aria-hidden="true" />
      <svg ref={svg} aria-hidden="true" focusable="false">
        <path data-part="guides" class="annotate-guides" />
        <path data-part="hover-casing" class="annotate-casing" />
        <path data-part="hover" class="annotate-hover" />
        <path data-part="fill" class="annotate-fill" />
        <path data-part="casing" class="annotate-casing" />
        <path data-part="outline" class="annotate-outline" />
        <path data-part="draft-casing" class="annotate-casing" />
        <path data-part="draft" class="annotate-outline" />
        <path data-part="keypoints" class="annotate-keypoints" />
        <path data-part="middles" class="annotate-middles" />
        <path data-part="handles" class="annotate-handles" />
        <path data-part="draft-points" class="annotate-handles" />
        <circle data-part="active" class="annotate-active" r="7" />
        <path data-part="cursor" class="annotate-cursor" />
        <g data-part="tag">
          <rect height="18" rx="3" />
          <text x="5" y="13" />
        </g>
      </svg>
    </div>
  );
}

type Part =
  | "guides" | "hover-casing" | "hover" | "fill" | "casing" | "outline" | "draft-casing" | "draft" | "keypoints"
  | "middles" | "handles" | "draft-points" | "active" | "cursor" | "tag";

class StageView implements StageControl {
  private view: View;
  private stage: Size = { width: 1, height: 1 };
  private readonly size: Size;
  private readonly parts: Record<Part, SVGElement>;
  private readonly context: CanvasRenderingContext2D;
  private readonly ends: (() => void)[] = [];
  private frame = 0;
  private dirty = { canvas: true, overlay: true, view: true };
  private fitted = true;
  private painted: { view: View; items: readonly Item[]; skip: ReadonlySet<string> } | null = null;
  private rest: ReturnType<typeof setTimeout> | undefined;
  private spaceDown = false;
  private pointer: Point | null = null; // where the mouse is, for the guides of the box tool
  private panning: { id: number; at: Point; moved: boolean; click: boolean } | null = null;
  private readonly fingers = new Map<number, Point>();
  private pinch: { distance: number; middle: Point } | null = null;
  private pressed: number | null = null;
  private readonly widths = new Map<string, number>();

  private readonly editor: Editor;
  private readonly image: HTMLImageElement;
  private readonly box: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly svg: SVGSVGElement;
  private readonly onZoom: (scale: number) => void;

  constructor(elements: { box: HTMLElement; canvas: HTMLCanvasElement; svg: SVGSVGElement; place: HTMLElement }, editor: Editor, image: HTMLImageElement, onZoom: (scale: number) => void) {
    const { box, canvas, svg, place } = elements;
    this.editor = editor;
    this.image = image;
    this.box = box;
    this.canvas = canvas;
    this.svg = svg;
    this.onZoom = onZoom;
    this.size = editor.size;
    this.view = { scale: 1, x: 0, y: 0 };
    this.context = canvas.getContext("2d")!;
    this.parts = Object.fromEntries(
      [...svg.querySelectorAll<SVGElement>("[data-part]")].map((part) => [part.dataset.part, part]),
    ) as Record<Part, SVGElement>;
    image.width = this.size.width;
    image.height = this.size.height;
    place.replaceChildren(image);
    this.measure();
    this.fit();
    this.draw(); // at once: no frame without the new image
    const observer = new ResizeObserver(() => this.measure());
    observer.observe(box);
    this.ends.push(() => observer.disconnect());
    this.ends.push(
      editor.onChange((change) => {
        if (change === "classes") this.painted = null; // colours
        if (change === "items" || change === "selection" || change === "suggestions" || change === "classes") this.dirty.canvas = true;
        if (change === "tool") this.tool();
        this.ask();
      }),
    );
    this.listen();
    this.tool();
  }

  end(): void {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.rest);
    for (const end of this.ends) end();
  }

  // --- drawing ---

  private ask(): void {
    this.dirty.overlay = true;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  private colour = (label: string): string => classColour(this.editor.colourIndex(label));

  private draw(): void {
    const { editor, view, stage, dirty } = this;
    if (dirty.view) {
      this.image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
      this.image.style.imageRendering = view.scale >= SHARP ? "pixelated" : "auto";
      editor.viewBox = shown(view, stage);
    }
    if (dirty.canvas || (dirty.view && !this.movable())) this.paint();
    else if (dirty.view) this.movePainted();
    this.drawOverlay();
    this.dirty = { canvas: false, overlay: false, view: false };
  }

  private paint(): void {
    clearTimeout(this.rest);
    const { editor, view, stage, painted } = this;
    const items = editor.visible;
    const skip: ReadonlySet<string> = new Set(editor.selected);
    let part: Box | null | undefined;
    if (painted?.view === view && items.length > LIGHT && painted.items.length > LIGHT) {
      part = changedPart(items, skip, painted.items, painted.skip);
      if (!part) return;
    }
    const scene = {
      items,
      skip,
      view: { scale: view.scale, x: view.x + EDGE, y: view.y + EDGE },
      stage: { width: stage.width + 2 * EDGE, height: stage.height + 2 * EDGE },
      ratio: devicePixelRatio || 1,
      colour: this.colour,
      edge: EDGE,
    };
    paint(this.context, scene, part ?? undefined);
    this.painted = { view, items, skip };
    this.canvas.style.transform = `translate(${-EDGE}px, ${-EDGE}px)`;
  }

  /** Whether what is painted can be moved and scaled to the view, and covers it. */
  private movable(): boolean {
    const { view, stage, size, painted } = this;
    if (!painted || painted.items.length <= LIGHT) return false;
    const ratio = view.scale / painted.view.scale;
    if (ratio > 2 || ratio < 0.5) return false;
    const seen = shown(view, stage);
    const whole = { width: stage.width + 2 * EDGE, height: stage.height + 2 * EDGE };
    const there = shown({ scale: painted.view.scale, x: painted.view.x + EDGE, y: painted.view.y + EDGE }, whole);
    const covers = (low: number, high: number, end: number) =>
      Math.max(seen[low]!, 0) >= Math.max(there[low]!, 0) && Math.min(seen[high]!, end) <= Math.min(there[high]!, end);
    return covers(0, 2, size.width) && covers(1, 3, size.height);
  }

  /** Thousands of shapes take longer than a frame: their picture is moved, and painted at rest. */
  private movePainted(): void {
    const { view, painted } = this;
    if (!painted) return;
    const ratio = view.scale / painted.view.scale;
    const along = (now: number, then: number) => now - (then + EDGE) * ratio;
    this.canvas.style.transform = `translate(${along(view.x, painted.view.x)}px, ${along(view.y, painted.view.y)}px) scale(${ratio})`;
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.dirty.canvas = true;
      this.ask();
    }, REST);
  }

  private drawOverlay(): void {
    const overlay = overlayOf(this.editor, this.view, this.colour);
    const { parts } = this;
    const path = (part: Part, d: string, colour = "") => {
      parts[part].setAttribute("d", d);
      if (colour) parts[part].style.color = colour;
    };
    path("hover-casing", overlay.hover);
    path("hover", overlay.hover, overlay.hoverColour);
    path("fill", overlay.fill, overlay.colour);
    path("casing", overlay.outline);
    path("outline", overlay.outline, overlay.colour);
    parts.outline.style.strokeDasharray = overlay.dashed ? "6 4" : "";
    path("draft-casing", overlay.draft);
    path("draft", overlay.draft, overlay.colour);
    path("keypoints", overlay.keypoints, overlay.colour);
    path("middles", overlay.middles, overlay.colour);
    path("handles", overlay.handles, overlay.colour);
    path("draft-points", overlay.draftPoints, overlay.colour);
    const { active, cursor } = overlay;
    parts.active.setAttribute("visibility", active ? "visible" : "hidden");
    if (active) {
      parts.active.setAttribute("cx", String(active[0]));
      parts.active.setAttribute("cy", String(active[1]));
    }
    const { pointer, stage } = this;
    const guided = pointer && this.editor.tool === "box" && !this.spaceDown && !this.panning;
    path("guides", guided ? `M0 ${pointer[1]}H${stage.width}M${pointer[0]} 0V${stage.height}` : "");
    path("cursor", cursor && overlay.cursorByKeys ? `M${cursor[0] - 14} ${cursor[1]}h28M${cursor[0]} ${cursor[1] - 14}v28` : "");
    this.drawTag(overlay.tagged?.key ?? null);
  }

  private drawTag(key: string | null): void {
    const tag = this.parts.tag;
    const item = this.editor.item(key);
    const shape = item && this.editor.shapeOf(item);
    const bounds = shape && boundsOf(shape);
    tag.setAttribute("visibility", bounds ? "visible" : "hidden");
    if (!shape || !bounds) return;
    const [rect, label] = [tag.firstElementChild as SVGRectElement, tag.lastElementChild as SVGTextElement];
    const active = this.editor.active;
    const point = active?.kind === "keypoint" && key === this.editor.primary?.key ? shape.keypoints[active.index] : undefined;
    const words = point?.name ?? tagOf(shape);
    if (label.textContent !== words) label.textContent = words;
    let width = this.widths.get(words);
    if (width === undefined) this.widths.set(words, (width = label.getComputedTextLength() + 10));
    rect.setAttribute("width", String(width));
    rect.style.fill = this.colour(shape.label);
    const [x, y] = toStage(this.view, point ? [point.x, point.y] : [bounds[0], bounds[1]]);
    const left = Math.min(Math.max(x - 2, 0), Math.max(this.stage.width - width, 0));
    const top = y - 24 < 0 ? Math.max(y, 0) + 8 : y - 24;
    tag.setAttribute("transform", `translate(${left.toFixed(1)} ${top.toFixed(1)})`);
  }

  private measure(): void {
    const stage = { width: this.box.clientWidth || 1, height: this.box.clientHeight || 1 };
    const old = this.stage;
    this.stage = stage;
    const whole = { width: stage.width + 2 * EDGE, height: stage.height + 2 * EDGE };
    const pixels = canvasSize(whole, devicePixelRatio || 1);
    if (this.canvas.width !== pixels.width || this.canvas.height !== pixels.height) {
      Object.assign(this.canvas, pixels);
      this.canvas.style.width = `${whole.width}px`;
      this.canvas.style.height = `${whole.height}px`;
      this.painted = null; // it is empty now
      this.dirty.canvas = true;
    }
    this.svg.setAttribute("viewBox", `0 0 ${stage.width} ${stage.height}`);
    if (this.fitted) this.fit();
    else this.change(pan(this.view, [(stage.width - old.width) / 2, (stage.height - old.height) / 2], this.size, stage));
  }

  // --- the view ---

  private change(view: View): void {
    const zoomed = view.scale !== this.view.scale;
    this.view = view;
    this.dirty.view = true;
    this.fitted = false;
    if (zoomed) this.onZoom(view.scale);
    this.ask();
  }

  private get middle(): Point {
    return [this.stage.width / 2, this.stage.height / 2];
  }

  scale = (): number => this.view.scale;

  fit = (): void => {
    this.change(fit(this.size, this.stage));
    this.onZoom(this.view.scale);
    this.fitted = true;
  };

  actual = (): void => {
    // A pixel of the image is a pixel of the screen.
    this.change(centred(this.size, this.stage, 1 / (devicePixelRatio || 1)));
  };

  zoom = (steps: number): void => this.change(zoomAt(this.view, this.middle, STEP ** steps, this.size, this.stage));

  pan = (dx: number, dy: number): void => this.change(pan(this.view, [dx, dy], this.size, this.stage));

  reveal = (closely = false): void => {
    const boxes = this.editor.selectedItems.map((item) => boundsOf(item.shape)).filter((one) => one !== null);
    const [first] = boxes;
    if (!first) return;
    const whole = boxes.reduce((a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])], first);
    if (closely) {
      const [width, height] = [Math.max(whole[2] - whole[0], 1), Math.max(whole[3] - whole[1], 1)];
      const scale = Math.min((this.stage.width * 0.6) / width, (this.stage.height * 0.6) / height, 32);
      const [x, y] = this.middle;
      const to = { scale, x: x - ((whole[0] + whole[2]) / 2) * scale, y: y - ((whole[1] + whole[3]) / 2) * scale };
      this.change(pan(to, [0, 0], this.size, this.stage));
      return;
    }
    const view = reveal(this.view, whole, this.size, this.stage);
    if (view !== this.view) this.change(view);
  };

  focus = (): void => this.box.focus({ preventScroll: true });

  space = (down: boolean): void => {
    this.spaceDown = down;
    this.tool();
  };

  private tool(): void {
    this.box.dataset.tool = this.spaceDown ? "pan" : this.editor.tool;
  }

  // --- pointer, wheel and fingers ---

  private listen(): void {
    const { box } = this;
    const on = <K extends keyof HTMLElementEventMap>(kind: K, act: (event: HTMLElementEventMap[K]) => void, options?: AddEventListenerOptions) => {
      box.addEventListener(kind, act, options);
      this.ends.push(() => box.removeEventListener(kind, act, options));
    };
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.lost);
    on("pointerleave", () => {
      this.pointer = null;
      this.editor.hover(null);
      this.ask();
    });
    on("wheel", this.wheel, { passive: false });
    on("dblclick", this.double);
    on("contextmenu", (event) => event.preventDefault());
  }

  private at(event: MouseEvent): Point {
    const bounds = this.box.getBoundingClientRect();
    return [event.clientX - bounds.left - this.box.clientLeft, event.clientY - bounds.top - this.box.clientTop];
  }

  private options(event: PointerEvent): PressOptions {
    return { shift: event.shiftKey, alt: event.altKey, touch: event.pointerType === "touch", reach: REACH / this.view.scale };
  }

  private down = (event: PointerEvent): void => {
    const at = this.at(event);
    this.box.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, at);
      if (this.fingers.size === 2) {
        this.editor.abort();
        this.pressed = null;
        this.panning = null;
        this.pinch = this.spread();
        return;
      }
      if (this.fingers.size > 2) return;
    }
    const pans = event.button === 1 || (event.button === 0 && this.spaceDown);
    if (event.button === 2) {
      // The right button deletes a corner, of a polygon being drawn the last one.
      const p = toImage(this.view, at);
      if (this.editor.isDrawing) this.editor.undo();
      else if (this.editor.grip(p, REACH / this.view.scale)?.fresh === false) {
        this.editor.press(p, { ...this.options(event), alt: true });
        this.editor.abort();
      }
      return;
    }
    if (event.button > 1) return;
    if (pans || this.editor.press(toImage(this.view, at), this.options(event)) === "pan") {
      this.panning = { id: event.pointerId, at, moved: false, click: !pans };
      this.box.dataset.panning = "";
      return;
    }
    this.pressed = event.pointerId;
  };

  private move = (event: PointerEvent): void => {
    const at = this.at(event);
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, at);
    if (this.pinch) {
      const now = this.spread();
      if (!now) return;
      const { distance, middle } = this.pinch;
      const moved = pan(this.view, [now.middle[0] - middle[0], now.middle[1] - middle[1]], this.size, this.stage);
      this.change(zoomAt(moved, now.middle, now.distance / (distance || 1), this.size, this.stage));
      this.pinch = now;
      return;
    }
    const panning = this.panning;
    if (panning?.id === event.pointerId) {
      const by: Point = [at[0] - panning.at[0], at[1] - panning.at[1]];
      if (!panning.moved && Math.hypot(...by) < SLACK) return;
      panning.moved = true;
      panning.at = at;
      this.change(pan(this.view, by, this.size, this.stage));
      return;
    }
    const p = toImage(this.view, at);
    this.pointer = event.pointerType === "touch" ? null : at;
    if (this.editor.tool === "box") this.ask();
    if (this.pressed === null) this.hover(p);
    this.editor.move(p, SLACK / this.view.scale);
  };

  private up = (event: PointerEvent): void => {
    this.fingers.delete(event.pointerId);
    if (this.pinch) {
      if (this.fingers.size < 2) this.pinch = null;
      return;
    }
    if (this.panning?.id === event.pointerId) {
      if (!this.panning.moved && this.panning.click) this.editor.clickNothing();
      this.panning = null;
      delete this.box.dataset.panning;
      return;
    }
    if (this.pressed !== event.pointerId) return;
    this.pressed = null;
    this.editor.release(toImage(this.view, this.at(event)), this.options(event));
  };

  private lost = (event: PointerEvent): void => {
    this.fingers.delete(event.pointerId);
    this.pinch = null;
    this.panning = null;
    this.pressed = null;
    delete this.box.dataset.panning;
    this.editor.abort();
  };

  private double = (event: MouseEvent): void => {
    const reach = REACH / this.view.scale;
    if (this.editor.isDrawing) this.editor.finishPolygon(reach);
    else if (this.editor.tool === "select") this.editor.insertNear(toImage(this.view, this.at(event)), reach);
  };

  private wheel = (event: WheelEvent): void => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    if (event.shiftKey && !event.ctrlKey) {
      this.pan(-(event.deltaX || event.deltaY) * lines, event.deltaX ? -event.deltaY * lines : 0);
      return;
    }
    // A pinch on a touchpad comes as a wheel with Ctrl, in small strides.
    const factor = Math.exp((-event.deltaY * lines) / (event.ctrlKey ? 100 : 400));
    this.change(zoomAt(this.view, this.at(event), Math.min(Math.max(factor, 0.5), 2), this.size, this.stage));
  };

  private spread(): { distance: number; middle: Point } | null {
    const [a, b] = [...this.fingers.values()];
    if (!a || !b) return null;
    return { distance: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  }

  private hover(p: Point): void {
    const { editor } = this;
    const reach = REACH / this.view.scale;
    const grip = editor.isDrawing ? null : editor.grip(p, reach);
    const found = editor.isDrawing ? null : editor.at(p, reach / 2);
    this.box.dataset.grip = grip ? (grip.active.kind === "handle" ? `${grip.active.handle.x}${grip.active.handle.y}` : "point") : found ? "shape" : "";
    editor.hover(found && kindOf(found.shape) !== "class" ? found.key : null);
  }
}
