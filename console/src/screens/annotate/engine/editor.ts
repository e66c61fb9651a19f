/** The state of one image in the annotator, and every action on it. No browser is needed. */

import { copied, type Clipboard } from "./clipboard.ts";
import {
  coincide,
  CORNERS,
  cornersOf,
  crossesItself,
  deleteCorner,
  distance,
  HANDLES,
  insertCorner,
  inside,
  isCrossed,
  middleOfEdge,
  moveCorner,
  moveShapes,
  nearestCorner,
  nearestEdge,
  oval,
  placeOf,
  placeOfHandle,
  resizeBox,
  resizeShape,
  ringAt,
  setKeypoint,
  shapeAt,
  skeleton,
  SMALLEST,
  type Corner,
  type Handle,
} from "./geometry.ts";
import { History } from "./history.ts";
import {
  boundsOf,
  kindOf,
  newShape,
  ofPerson,
  type Box,
  type Item,
  type Kind,
  type Point,
  type Shape,
  type Size,
  type Visibility,
} from "./shape.ts";

export type Tool = "select" | "box" | "polygon" | "keypoint";

/** The point of the selected shape that arrows move: V goes from one to the next. */
export type Active =
  | { kind: "corner"; corner: Corner }
  | { kind: "handle"; handle: Handle }
  | { kind: "keypoint"; index: number };

/** What is being drawn and is no shape yet. */
export type Draft =
  | { kind: "box"; from: Point; to: Point }
  | { kind: "polygon"; points: Point[]; cursor: Point; byKeys: boolean };

/** What happened, for the live region. */
export type Notice =
  | { what: "selected"; label: string; kind: Kind; index: number; of: number; suggested: boolean; score: number | null }
  | { what: "selected-many" | "deleted" | "rejected" | "accepted" | "copied" | "pasted" | "duplicated"; count: number }
  | { what: "moved" | "resized"; label: string; box: Box }
  | { what: "drawn" | "relabelled"; label: string; kind: Kind }
  | { what: "class"; label: string }
  | { what: "class-chosen" | "class-removed"; label: string }
  | { what: "corner" | "corner-inserted"; index: number; of: number; hole: boolean; x: number; y: number }
  | { what: "cursor"; x: number; y: number }
  | { what: "corner-deleted"; of: number }
  | { what: "handle"; handle: Handle; x: number; y: number }
  | { what: "keypoint"; name: string; visibility: Visibility; x: number; y: number }
  | { what: "point-placed"; count: number }
  | { what: "undone" | "redone"; step: Step; left: number }
  | { what: "tool"; tool: Tool }
  | { what: "suggestions"; shown: boolean; count: number }
  | {
      what:
        | "none"
        | "nothing-selected"
        | "needs-class"
        | "needs-object"
        | "needs-three"
        | "needs-polygon"
        | "no-keypoints"
        | "corner-last"
        | "crossed"
        | "undo-none"
        | "redo-none"
        | "clipboard-empty"
        | "cancelled"
        | "left-points";
    };

export type Step =
  | "move"
  | "resize"
  | "draw"
  | "delete"
  | "relabel"
  | "corner"
  | "keypoint"
  | "paste"
  | "accept"
  | "reject"
  | "class"
  | "clear";

export type Change = "items" | "selection" | "overlay" | "tool" | "classes" | "suggestions";

export interface Start {
  width: number;
  height: number;
  classes: readonly string[];
  keypointNames: readonly string[];
  task: string;
  objects: readonly Shape[];
  suggestions: readonly Shape[];
}

export interface Settings {
  /** Who edits. */
  by: string;
  newId: () => string;
  clipboard: Clipboard;
  threshold?: number;
  suggestionsShown?: boolean;
  currentClass?: string;
  tool?: Tool;
}

interface State {
  items: readonly Item[];
  selected: readonly string[];
  step: Step;
}

type Drag =
  | { kind: "move"; from: Point; keys: string[] }
  | { kind: "active"; key: string; active: Active; shape: Shape; fresh: boolean; off: Point }
  | { kind: "draw"; from: Point }
  | { kind: "place"; from: Point };

export interface PressOptions {
  shift?: boolean;
  alt?: boolean;
  touch?: boolean;
  /** How far a finger or a mouse may miss, in pixels of the image. */
  reach: number;
}

export class Editor {
  readonly size: Size;
  readonly task: string;
  readonly keypointNames: readonly string[];
  classes: string[];
  items: readonly Item[];
  /** Keys of the selected items; the last one is the primary. */
  selected: readonly string[] = [];
  active: Active | null = null;
  tool: Tool;
  draft: Draft | null = null;
  /** Shapes as they are dragged, by key. The items change when the drag ends. */
  preview: ReadonlyMap<string, Shape> = new Map();
  hovered: string | null = null;
  currentClass: string;
  threshold: number;
  suggestionsShown: boolean;
  /** The part of the image in view: new shapes are put in its middle. */
  viewBox: Box;

  private readonly by: string;
  private readonly newId: () => string;
  private readonly clipboard: Clipboard;
  private readonly history = new History<State>();
  private readonly listeners = new Set<(change: Change) => void>();
  private readonly hearers = new Set<(notice: Notice) => void>();
  private keys = 0;
  private drag: Drag | null = null;
  private moved = false;
  private last = -1; // the place in the list where J and K go on after a deletion

  constructor(start: Start, settings: Settings) {
    this.size = { width: start.width, height: start.height };
    this.task = start.task;
    this.keypointNames = start.keypointNames;
    this.classes = [...start.classes];
    for (const shape of [...start.objects, ...start.suggestions]) {
      if (!this.classes.includes(shape.label)) this.classes.push(shape.label);
    }
    const fresh = start.suggestions.filter((shape) => !start.objects.some((own) => coincide(own, shape)));
    this.items = [
      ...start.objects.map((shape) => this.itemOf(shape, false)),
      ...fresh.map((shape) => this.itemOf(shape, true)),
    ];
    this.by = settings.by;
    this.newId = settings.newId;
    this.clipboard = settings.clipboard;
    this.threshold = settings.threshold ?? 0;
    this.suggestionsShown = settings.suggestionsShown ?? true;
    this.tool = settings.tool ?? "select";
    const wanted = settings.currentClass ?? "";
    this.currentClass = this.classes.includes(wanted) ? wanted : (this.classes[0] ?? "");
    this.viewBox = [0, 0, start.width, start.height];
  }

  private itemOf(shape: Shape, suggested: boolean): Item {
    return { key: `k${++this.keys}`, shape, suggested };
  }

  // --- listening ---

  onChange(listener: (change: Change) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  onNotice(hearer: (notice: Notice) => void): () => void {
    this.hearers.add(hearer);
    return () => this.hearers.delete(hearer);
  }

  private emit(...changes: Change[]): void {
    for (const change of changes) for (const listener of this.listeners) listener(change);
  }

  private say(notice: Notice): void {
    for (const hearer of this.hearers) hearer(notice);
  }

  // --- what is there ---

  /** What is saved: objects in their order, without the suggestions that nobody accepted. */
  get objects(): Shape[] {
    return this.items.filter((item) => !item.suggested).map((item) => item.shape);
  }

  isVisible(item: Item): boolean {
    return !item.suggested || (this.suggestionsShown && (item.shape.score ?? 1) >= this.threshold);
  }

  private seen: { items: readonly Item[]; threshold: number; shown: boolean; visible: Item[] } | null = null;

  get visible(): Item[] {
    const { items, threshold, suggestionsShown: shown } = this;
    const seen = this.seen;
    if (seen && seen.items === items && seen.threshold === threshold && seen.shown === shown) return seen.visible;
    const visible = items.filter((item) => this.isVisible(item));
    this.seen = { items, threshold, shown, visible };
    return visible;
  }

  item(key: string | null): Item | undefined {
    return key === null ? undefined : this.items.find((item) => item.key === key);
  }

  get primary(): Item | undefined {
    return this.item(this.selected.at(-1) ?? null);
  }

  /** The shape as it is on the screen: dragged or not. */
  shapeOf(item: Item): Shape {
    return this.preview.get(item.key) ?? item.shape;
  }

  get selectedItems(): Item[] {
    const wanted = new Set(this.selected);
    return this.items.filter((item) => wanted.has(item.key));
  }

  private indices: { classes: readonly string[]; map: Map<string, number> } | null = null;

  /** The place of a class, which gives its colour. */
  colourIndex(label: string): number {
    if (this.indices?.classes !== this.classes) {
      this.indices = { classes: this.classes, map: new Map(this.classes.map((name, i) => [name, i])) };
    }
    return this.indices.map.get(label) ?? 0;
  }

  get canUndo(): boolean {
    return this.history.canUndo;
  }

  get canRedo(): boolean {
    return this.history.canRedo;
  }

  get steps(): number {
    return this.history.steps;
  }

  get isDragging(): boolean {
    return this.drag !== null;
  }

  // --- changing ---

  private commit(step: Step, items: readonly Item[], selected: readonly string[] = this.selected): void {
    this.history.push({ items: this.items, selected: this.selected, step });
    this.undone = [];
    this.items = items;
    this.selected = selected;
    this.emit("items", "selection", "overlay");
  }

  /** Replace shapes by edited ones: they are a person's then, and no suggestions any more. */
  private replace(step: Step, shapes: ReadonlyMap<string, Shape>, again = false): boolean {
    let changed = false;
    const items = this.items.map((item) => {
      const shape = shapes.get(item.key);
      if (!shape || shape === item.shape) return item;
      changed = true;
      return this.owned({ ...item, shape: { ...shape, by: this.by } });
    });
    if (!changed) return false;
    if (again) {
      // A held key: the whole movement is one step.
      this.items = items;
      this.emit("items", "selection", "overlay");
    } else {
      this.commit(step, items);
    }
    return true;
  }

  /** The item as a person's object. A suggestion's id may be that of an object: it gets its own. */
  private owned(item: Item): Item {
    const shape = ofPerson(item.shape, this.by);
    return { key: item.key, shape: item.suggested ? { ...shape, id: this.newId() } : shape, suggested: false };
  }

  undo(): void {
    if (this.isDrawing) return this.takeBackPoint();
    this.cancel(true);
    const state = this.history.undo({ items: this.items, selected: this.selected, step: "move" });
    if (!state) return this.say({ what: "undo-none" });
    this.restore(state);
    this.undone.push(state.step);
    this.say({ what: "undone", step: state.step, left: this.history.steps });
  }

  private undone: Step[] = [];

  redo(): void {
    this.cancel(true);
    if (!this.history.canRedo) return this.say({ what: "redo-none" });
    const step = this.undone.pop() ?? "move";
    const state = this.history.redo({ items: this.items, selected: this.selected, step });
    this.restore(state!);
    this.say({ what: "redone", step, left: this.history.steps });
  }

  private restore(state: State): void {
    this.items = state.items;
    const keys = new Set(state.items.map((item) => item.key));
    this.selected = state.selected.filter((key) => keys.has(key));
    if (this.active && !this.isThere(this.active)) this.active = null;
    this.emit("items", "selection", "overlay");
  }

  private isThere(active: Active): boolean {
    const shape = this.primary?.shape;
    if (!shape) return false;
    if (active.kind === "corner") return placeOf(shape, active.corner) !== undefined;
    return active.kind === "handle" ? shape.box !== null : active.index < shape.keypoints.length;
  }

  // --- selection ---

  select(keys: readonly string[], told = true): void {
    if (keys.length === this.selected.length && keys.every((key, i) => key === this.selected[i])) {
      if (!this.active) return;
    }
    this.selected = keys;
    this.active = null;
    this.emit("selection", "overlay");
    if (!told) return;
    const item = this.primary;
    if (keys.length > 1) this.say({ what: "selected-many", count: keys.length });
    else if (item) this.tellSelected(item);
  }

  private tellSelected(item: Item): void {
    const visible = this.visible;
    const { shape, suggested } = item;
    const index = visible.indexOf(item) + 1;
    this.say({ what: "selected", label: shape.label, kind: kindOf(shape), index, of: visible.length, suggested, score: shape.score });
  }

  toggle(key: string): void {
    const rest = this.selected.filter((other) => other !== key);
    this.select(rest.length < this.selected.length ? rest : [...rest, key]);
  }

  selectAll(): void {
    this.select(this.visible.map((item) => item.key));
  }

  /** The next object of the list (1) or the previous one (-1), around its ends. */
  step(by: 1 | -1): Item | undefined {
    const visible = this.visible;
    if (!visible.length) {
      this.say({ what: "none" });
      return undefined;
    }
    const at = visible.findIndex((item) => item.key === this.selected.at(-1));
    // After a deletion `last` is the place of what followed.
    const next = at >= 0 ? at + by : this.last >= 0 ? this.last + (by < 0 ? -1 : 0) : by > 0 ? 0 : -1;
    const item = visible[((next % visible.length) + visible.length) % visible.length]!;
    this.last = -1;
    this.endDraft();
    this.select([item.key], false);
    this.tellSelected(item);
    return item;
  }

  hover(key: string | null): void {
    if (key === this.hovered) return;
    this.hovered = key;
    this.emit("overlay");
  }

  // --- tools and classes ---

  setTool(tool: Tool): void {
    this.endDraft();
    this.tool = tool;
    if (tool === "polygon") {
      this.select([], false);
      this.beginPolygon(this.middle, true);
    }
    this.emit("tool", "overlay");
    this.say({ what: "tool", tool });
  }

  private get middle(): Point {
    const [left, top, right, bottom] = this.viewBox;
    return inside([(left + right) / 2, (top + bottom) / 2], this.size);
  }

  private get middleBox(): Box {
    const [left, top, right, bottom] = this.viewBox;
    const [x, y] = this.middle;
    const half = (low: number, high: number, end: number) =>
      Math.max((Math.min(high, end) - Math.max(low, 0)) / 8, SMALLEST);
    const [dx, dy] = [half(left, right, this.size.width), half(top, bottom, this.size.height)];
    const [x1, y1] = inside([Math.round(x - dx), Math.round(y - dy)], this.size);
    const [x2, y2] = inside([Math.round(x + dx), Math.round(y + dy)], this.size);
    return [x1, y1, Math.max(x2, x1 + SMALLEST), Math.max(y2, y1 + SMALLEST)];
  }

  /** B: the box tool; with the tool already chosen, a box in the middle of the view. */
  boxKey(): void {
    if (this.tool !== "box") this.setTool("box");
    else this.add({ box: this.middleBox });
  }

  /** P: the polygon tool with a cursor; once more, a polygon of eight corners in the middle. */
  polygonKey(): void {
    if (this.tool !== "polygon") return this.setTool("polygon");
    const draft = this.draft;
    if (draft?.kind === "polygon" && draft.points.length) return this.closePolygon();
    if (!draft) {
      this.select([], false);
      this.beginPolygon(this.middle, true);
      return this.say({ what: "tool", tool: "polygon" });
    }
    this.draft = null;
    this.add({ parts: [{ outline: oval(this.middleBox), holes: [] }] });
  }

  private add(form: Partial<Shape>, step: Step = "draw"): boolean {
    if (!this.currentClass) {
      this.say({ what: "needs-class" });
      return false;
    }
    const shape = newShape(this.newId(), this.currentClass, this.by, form);
    if (form.box && this.keypointNames.length) shape.keypoints = skeleton([], this.keypointNames);
    const item = this.itemOf(shape, false);
    this.active = null;
    this.commit(step, [...this.items, item], [item.key]);
    this.say({ what: "drawn", label: shape.label, kind: kindOf(shape) });
    if (isCrossed(shape)) this.say({ what: "crossed" });
    return true;
  }

  /** The class of the selected objects, and of the next ones drawn. */
  setClass(label: string): void {
    if (!this.classes.includes(label)) {
      this.classes = [...this.classes, label];
      this.emit("classes");
    }
    if (this.currentClass !== label) {
      this.currentClass = label;
      this.emit("classes");
    }
    if (this.task === "classify") return this.chooseClass(label, false);
    const wanted = this.selectedItems.filter((item) => item.shape.label !== label);
    if (!wanted.length) return this.say({ what: "class", label });
    this.replace("relabel", new Map(wanted.map((item) => [item.key, { ...item.shape, label }])));
    this.say({ what: "relabelled", label, kind: kindOf(wanted[0]!.shape) });
  }

  /** Classification: the class of the image, alone or (`more`) beside those it has. */
  chooseClass(label: string, more: boolean): void {
    const isClass = (item: Item) => kindOf(item.shape) === "class";
    const chosen = this.items.filter((item) => isClass(item) && !item.suggested);
    const had = chosen.find((item) => item.shape.label === label);
    // A person's choice decides: the suggested classes go.
    const others = this.items.filter((item) => !isClass(item));
    if (had && more) {
      this.commit("class", [...chosen.filter((item) => item !== had), ...others], []);
      return this.say({ what: "class-removed", label });
    }
    const item = had ?? this.itemOf(newShape(this.newId(), label, this.by), false);
    const items = [...(more ? chosen : []), item, ...others];
    if (items.length < this.items.length || !had) this.commit("class", items, []);
    this.say({ what: "class-chosen", label });
  }

  addClass(name: string): boolean {
    const label = name.trim();
    if (!label) return false;
    this.setClass(label);
    return true;
  }

  // --- suggestions ---

  get suggestionCount(): number {
    return this.visible.reduce((count, item) => count + Number(item.suggested), 0);
  }

  showSuggestions(shown: boolean): void {
    this.suggestionsShown = shown;
    this.dropInvisible();
    this.say({ what: "suggestions", shown, count: this.suggestionCount });
  }

  setThreshold(threshold: number): void {
    this.threshold = threshold;
    this.dropInvisible();
  }

  private dropInvisible(): void {
    const visible = new Set(this.visible.map((item) => item.key));
    const selected = this.selected.filter((key) => visible.has(key));
    if (selected.length < this.selected.length) this.select(selected, false);
    if (this.hovered && !visible.has(this.hovered)) this.hovered = null;
    this.emit("suggestions", "overlay");
  }

  /** A: the selected shapes are right. Without a selection nothing is accepted. */
  acceptSelected(): void {
    const wanted = this.selectedItems.filter((item) => item.suggested || item.shape.source === "model");
    if (!wanted.length) return this.say({ what: "nothing-selected" });
    this.accept(new Set(wanted.map((item) => item.key)));
  }

  /** All suggestions in view, those above the threshold, become objects. */
  acceptShown(): void {
    this.accept(new Set(this.visible.filter((item) => item.suggested).map((item) => item.key)));
  }

  private accept(keys: ReadonlySet<string>): void {
    if (!keys.size) return this.say({ what: "none" });
    this.commit("accept", this.items.map((item) => (keys.has(item.key) ? this.owned(item) : item)));
    this.say({ what: "accepted", count: keys.size });
  }

  /** Enter: what is seen is right. All of it becomes a person's, the rest of the suggestions goes. */
  confirm(): Shape[] {
    this.endDraft();
    const seen = this.task === "classify" ? this.likeliest(this.visible) : this.visible;
    const right = seen.every((item) => !item.suggested && item.shape.source === "person");
    if (!right || seen.length < this.items.length) {
      this.commit("accept", seen.map((item) => this.owned(item)));
    }
    return this.objects;
  }

  /** Of several suggested classes of an image the one with the best score, if none is chosen. */
  private likeliest(items: Item[]): Item[] {
    const classes = items.filter((item) => kindOf(item.shape) === "class");
    if (classes.some((item) => !item.suggested)) return items.filter((item) => !item.suggested);
    const best = Math.max(...classes.map((item) => item.shape.score ?? 1));
    const first = classes.find((item) => (item.shape.score ?? 1) === best);
    return items.filter((item) => kindOf(item.shape) !== "class" || item === first);
  }

  /** N: a person looked, and nothing is here. */
  clear(): void {
    this.endDraft();
    this.active = null;
    if (this.items.length) this.commit("clear", [], []);
  }

  // --- editing the selection ---

  /** Delete the active corner, else the selected objects; a suggestion is rejected by it. */
  delete(): void {
    if (this.draft?.kind === "polygon" && this.draft.points.length) return this.takeBackPoint();
    const item = this.primary;
    if (!item) return this.say({ what: "nothing-selected" });
    if (this.active?.kind === "corner") return this.deleteActive(item, this.active.corner);
    if (this.active?.kind === "keypoint") return this.setVisibility(this.active.index, 0);
    const gone = new Set(this.selected);
    const suggested = this.selectedItems.every((one) => one.suggested);
    this.last = this.visible.findIndex((one) => gone.has(one.key));
    this.active = null;
    this.commit(suggested ? "reject" : "delete", this.items.filter((one) => !gone.has(one.key)), []);
    this.say({ what: suggested ? "rejected" : "deleted", count: gone.size });
  }

  private deleteActive(item: Item, corner: Corner): void {
    const left = deleteCorner(item.shape, corner);
    if (!left) return this.say({ what: "corner-last" });
    this.active = { kind: "corner", corner: left[1] };
    this.replace("corner", new Map([[item.key, left[0]]]));
    this.say({ what: "corner-deleted", of: ringAt(left[0], left[1])!.length });
    this.tellCrossed(item.key);
  }

  private tellCrossed(key: string): void {
    const shape = this.item(key)?.shape;
    if (shape && isCrossed(shape)) this.say({ what: "crossed" });
  }

  /**
   * Arrow keys: move the cursor of a polygon being drawn, else the active point, else the selection.
   *
   * @returns false if there is nothing to move
   */
  nudge(dx: number, dy: number, repeat = false): boolean {
    const draft = this.draft;
    if (draft?.kind === "polygon") {
      const cursor = inside([draft.cursor[0] + dx, draft.cursor[1] + dy], this.size);
      this.draft = { ...draft, cursor, byKeys: true };
      this.emit("overlay");
      this.say({ what: "cursor", x: cursor[0], y: cursor[1] });
      return true;
    }
    const item = this.primary;
    if (!item) return false;
    if (this.active && this.selected.length === 1) {
      const at = this.placeOfActive(item.shape, this.active);
      if (!at) return true;
      const to: Point = [at[0] + dx, at[1] + dy];
      const shape = this.movedActive(item.shape, this.active, to);
      this.replace(this.active.kind === "keypoint" ? "keypoint" : this.active.kind === "corner" ? "corner" : "resize", new Map([[item.key, shape]]), repeat);
      this.tellActive();
      if (this.active.kind === "corner") this.tellCrossed(item.key);
      return true;
    }
    const items = this.selectedItems;
    const shapes = moveShapes(items.map((one) => one.shape), [dx, dy], this.size);
    this.replace("move", new Map(items.map((one, i) => [one.key, shapes[i]!])), repeat);
    const box = boundsOf(this.primary!.shape);
    if (box) this.say({ what: "moved", label: item.shape.label, box });
    return true;
  }

  /** Alt and arrows: move the right and the bottom side of the selected objects. */
  resize(dx: number, dy: number, repeat = false): boolean {
    const items = this.selectedItems;
    if (!items.length) return false;
    this.replace("resize", new Map(items.map((item) => [item.key, resizeShape(item.shape, [dx, dy], this.size)])), repeat);
    const box = boundsOf(this.primary!.shape);
    if (box) this.say({ what: "resized", label: this.primary!.shape.label, box });
    return true;
  }

  // --- points of the selected shape ---

  private pointsOf(shape: Shape): Active[] {
    const corners = cornersOf(shape).map((corner): Active => ({ kind: "corner", corner }));
    const handles = shape.box && !shape.parts.length ? CORNERS.map((handle): Active => ({ kind: "handle", handle })) : [];
    const keypoints = shape.keypoints.flatMap((point, index): Active[] => (point.visibility ? [{ kind: "keypoint", index }] : []));
    return [...corners, ...handles, ...keypoints];
  }

  private placeOfActive(shape: Shape, active: Active): Point | undefined {
    if (active.kind === "corner") return placeOf(shape, active.corner);
    if (active.kind === "handle") return shape.box ? placeOfHandle(shape.box, active.handle) : undefined;
    const point = shape.keypoints[active.index];
    return point?.visibility ? [point.x, point.y] : undefined;
  }

  get activePlace(): Point | undefined {
    const item = this.primary;
    return item && this.active ? this.placeOfActive(this.shapeOf(item), this.active) : undefined;
  }

  private movedActive(shape: Shape, active: Active, to: Point): Shape {
    if (active.kind === "corner") return moveCorner(shape, active.corner, to, this.size);
    if (active.kind === "handle") {
      const box = resizeBox(shape.box!, active.handle, to, this.size);
      if (box[2] - box[0] < SMALLEST || box[3] - box[1] < SMALLEST) return shape;
      return { ...shape, box };
    }
    const [x, y] = inside(to, this.size);
    const visibility = shape.keypoints[active.index]!.visibility || 2;
    return setKeypoint(shape, active.index, { x, y, visibility });
  }

  /** V: the next corner or keypoint (or with -1 the previous one) of the selected shape. */
  nextPoint(by: 1 | -1 = 1): void {
    const item = this.primary ?? this.step(1);
    if (!item) return;
    if (this.selected.length > 1) this.select([item.key], false);
    const points = this.pointsOf(item.shape);
    if (!points.length) return this.say({ what: "needs-object" });
    const now = JSON.stringify(this.active);
    const at = points.findIndex((point) => JSON.stringify(point) === now);
    const next = at < 0 ? (by > 0 ? 0 : -1) : at + by;
    this.active = points[((next % points.length) + points.length) % points.length]!;
    this.emit("overlay", "selection");
    this.tellActive();
  }

  private tellActive(): void {
    const [item, active, place] = [this.primary, this.active, this.activePlace];
    if (!item || !active || !place) return;
    const [x, y] = place;
    if (active.kind === "handle") return this.say({ what: "handle", handle: active.handle, x, y });
    if (active.kind === "keypoint") {
      const { name, visibility } = item.shape.keypoints[active.index]!;
      return this.say({ what: "keypoint", name, visibility, x, y });
    }
    const { index, hole } = active.corner;
    const of = ringAt(item.shape, active.corner)!.length;
    this.say({ what: "corner", index: index + 1, of, hole: hole >= 0, x, y });
  }

  /** I: a corner in the middle of the edge behind the active one; a point of a polygon drawn. */
  insert(): void {
    if (this.draft?.kind === "polygon") return this.placePoint(this.draft.cursor);
    const item = this.primary;
    if (!item) return this.say({ what: "nothing-selected" });
    if (!item.shape.parts.length) return this.say({ what: "needs-polygon" });
    const behind = this.active?.kind === "corner" ? this.active.corner : { part: 0, hole: -1, index: 0 };
    this.insertAt(item, behind, middleOfEdge(item.shape, behind));
  }

  /** A corner on the edge nearest to p, such as where a person double-clicked. */
  insertNear(p: Point, reach: number): boolean {
    const item = this.primary;
    const edge = item && nearestEdge(item.shape, p);
    if (!item || !edge || edge.distance > reach) return false;
    this.insertAt(item, edge.corner, edge.point);
    return true;
  }

  private insertAt(item: Item, behind: Corner, at: Point): void {
    const [shape, corner] = insertCorner(item.shape, behind, at, this.size);
    this.active = { kind: "corner", corner };
    this.replace("corner", new Map([[item.key, shape]]));
    const [x, y] = placeOf(shape, corner)!;
    this.say({ what: "corner-inserted", index: corner.index + 1, of: ringAt(shape, corner)!.length, hole: corner.hole >= 0, x, y });
  }

  // --- keypoints ---

  /** M: place the next absent keypoint of the selected object in the middle of its box. */
  keypointKey(): void {
    const item = this.keypointObject();
    if (!item) return;
    const [shape, index] = this.withSkeleton(item.shape);
    if (this.tool !== "keypoint") {
      this.tool = "keypoint";
      this.emit("tool");
      this.say({ what: "tool", tool: "keypoint" });
      if (this.active?.kind !== "keypoint") this.active = null;
      this.emit("overlay");
      return;
    }
    if (index < 0) return this.nextPoint();
    const box = boundsOf(shape) ?? this.middleBox;
    this.putKeypoint(item, shape, index, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]);
  }

  private keypointObject(): Item | null {
    const item = this.primary;
    if (!this.keypointNames.length && !item?.shape.keypoints.length) {
      this.say({ what: "no-keypoints" });
      return null;
    }
    if (!item || kindOf(item.shape) === "class") {
      this.say({ what: "needs-object" });
      return null;
    }
    return item;
  }

  /** The shape with all keypoints of the skeleton, and the index of the first absent one or -1. */
  private withSkeleton(shape: Shape): [Shape, number] {
    const whole = { ...shape, keypoints: skeleton(shape.keypoints, this.keypointNames) };
    return [whole, whole.keypoints.findIndex((point) => !point.visibility)];
  }

  /** The keypoint that a click with the keypoint tool places. */
  get nextKeypoint(): string | null {
    const item = this.primary;
    if (!item || this.tool !== "keypoint") return null;
    const [shape, index] = this.withSkeleton(item.shape);
    return shape.keypoints[index]?.name ?? null;
  }

  private putKeypoint(item: Item, shape: Shape, index: number, at: Point): void {
    const [x, y] = inside(at, this.size);
    this.active = { kind: "keypoint", index };
    this.replace("keypoint", new Map([[item.key, setKeypoint(shape, index, { x, y, visibility: 2 })]]));
    this.tellActive();
  }

  /** O: visible, occluded, absent, for the active keypoint. */
  toggleVisibility(): void {
    const item = this.primary;
    if (!item || this.active?.kind !== "keypoint") return this.say({ what: "no-keypoints" });
    const now = item.shape.keypoints[this.active.index]!.visibility;
    this.setVisibility(this.active.index, now === 2 ? 1 : 0);
  }

  setVisibility(index: number, visibility: Visibility): void {
    const item = this.primary;
    const point = item?.shape.keypoints[index];
    if (!item || !point) return;
    let at: Point = [point.x, point.y];
    if (visibility && !point.visibility) {
      const box = boundsOf(item.shape) ?? this.middleBox;
      at = inside([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], this.size);
    }
    const shape = setKeypoint(item.shape, index, { visibility, x: at[0], y: at[1] });
    if (!visibility) this.active = null;
    else this.active = { kind: "keypoint", index };
    this.replace("keypoint", new Map([[item.key, shape]]));
    const { name, x, y } = shape.keypoints[index]!;
    this.say({ what: "keypoint", name, visibility, x, y });
  }

  // --- clipboard ---

  /** @param image stands for this image, see `Clipboard` */
  copy(image: unknown): void {
    const items = this.selectedItems;
    if (!items.length) return this.say({ what: "nothing-selected" });
    this.clipboard.copy(items.map((item) => item.shape), image);
    this.say({ what: "copied", count: items.length });
  }

  /** Copy everything, as when the person goes on to the next image. */
  pasteShapes(shapes: readonly Shape[]): void {
    if (!shapes.length) return this.say({ what: "clipboard-empty" });
    this.insertCopies(shapes.map((shape) => copied(shape, 0, this.size, this.by, this.newId())), "pasted");
  }

  paste(image: unknown): void {
    if (!this.clipboard.size) return this.say({ what: "clipboard-empty" });
    this.insertCopies(this.clipboard.paste(image, this.size, this.by, this.newId), "pasted");
  }

  duplicate(): void {
    const items = this.selectedItems.filter((item) => kindOf(item.shape) !== "class");
    if (!items.length) return this.say({ what: "nothing-selected" });
    this.insertCopies(items.map((item) => copied(item.shape, 10, this.size, this.by, this.newId())), "duplicated");
  }

  private insertCopies(shapes: Shape[], what: "pasted" | "duplicated"): void {
    const classes = [...new Set(shapes.map((shape) => shape.label))].filter((label) => !this.classes.includes(label));
    if (classes.length) {
      this.classes = [...this.classes, ...classes];
      this.emit("classes");
    }
    const items = shapes.map((shape) => this.itemOf(shape, false));
    this.active = null;
    this.commit("paste", [...this.items, ...items], items.map((item) => item.key));
    this.say({ what, count: items.length });
  }

  // --- drawing a polygon ---

  private beginPolygon(cursor: Point, byKeys: boolean): void {
    this.draft = { kind: "polygon", points: [], cursor, byKeys };
    this.active = null;
    this.emit("overlay");
  }

  private placePoint(p: Point): void {
    const draft = this.draft;
    if (draft?.kind !== "polygon") return;
    const at = inside(p, this.size);
    const end = draft.points.at(-1);
    if (end && distance(end, at) < 0.01) return; // a double click
    const points = [...draft.points, at];
    this.draft = { ...draft, points, cursor: at };
    this.emit("overlay");
    this.say({ what: "point-placed", count: points.length });
    if (points.length > 3 && crossesItself(points)) this.say({ what: "crossed" });
  }

  private takeBackPoint(): void {
    const draft = this.draft;
    if (draft?.kind !== "polygon") return;
    const points = draft.points.slice(0, -1);
    this.draft = { ...draft, points };
    this.emit("overlay");
    this.say({ what: "point-placed", count: points.length });
  }

  /** Enter while a polygon is drawn. */
  closePolygon(): void {
    const draft = this.draft;
    if (draft?.kind !== "polygon") return;
    if (draft.points.length < 3) return this.say({ what: "needs-three" });
    const outline = draft.points;
    if (!this.currentClass) return this.say({ what: "needs-class" });
    this.draft = null;
    this.add({ parts: [{ outline, holes: [] }] });
  }

  /** Whether Enter belongs to a polygon being drawn. */
  get isDrawing(): boolean {
    return this.draft?.kind === "polygon" && this.draft.points.length > 0;
  }

  /** A double click while a polygon is drawn: its second click is no corner. */
  finishPolygon(reach: number): void {
    const draft = this.draft;
    if (draft?.kind !== "polygon") return;
    const [end, before] = [draft.points.at(-1), draft.points.at(-2)];
    if (end && before && distance(end, before) <= reach / 2) {
      this.draft = { ...draft, points: draft.points.slice(0, -1) };
    }
    this.closePolygon();
  }

  private endDraft(): void {
    this.drag = null;
    this.preview = new Map();
    this.draft = null;
    this.emit("overlay");
  }

  /** Escape: end what is being done, the innermost first: drag, draft, point, selection, tool. */
  cancel(quiet = false): void {
    if (!quiet && this.draft?.kind === "polygon" && !this.draft.points.length) return this.setTool("select");
    if (this.drag || (this.draft && (this.draft.kind === "box" || !quiet))) {
      this.endDraft();
      if (!quiet) this.say({ what: "cancelled" });
      return;
    }
    if (quiet) return;
    if (this.active) {
      this.active = null;
      this.emit("overlay", "selection");
      return this.say({ what: "left-points" });
    }
    if (this.selected.length) return this.select([], false);
    if (this.tool !== "select") this.setTool("select");
  }

  // --- the pointer; p is in pixels of the image ---

  /** The shape that a click at p means. */
  at(p: Point, reach: number): Item | null {
    return shapeAt(this.visible, p, reach);
  }

  /** What a press at p would take hold of: a point of the selected shape. */
  grip(p: Point, reach: number): { active: Active; fresh: boolean } | null {
    const item = this.selected.length === 1 ? this.primary : undefined;
    if (!item) return null;
    const { shape } = item;
    let best: Active | null = null;
    let least = reach;
    const take = (active: Active, at: Point) => {
      const away = distance(at, p);
      if (away <= least) [best, least] = [active, away];
    };
    shape.keypoints.forEach((point, index) => {
      if (point.visibility) take({ kind: "keypoint", index }, [point.x, point.y]);
    });
    if (best) return { active: best, fresh: false };
    if (shape.parts.length) {
      const near = nearestCorner(shape, p);
      if (near && near.distance <= reach) return { active: { kind: "corner", corner: near.corner }, fresh: false };
      const edge = nearestEdge(shape, p);
      if (edge && distance(middleOfEdge(shape, edge.corner), p) <= reach) {
        return { active: { kind: "corner", corner: edge.corner }, fresh: true };
      }
    } else if (shape.box) {
      for (const handle of HANDLES) take({ kind: "handle", handle }, placeOfHandle(shape.box, handle));
    }
    return best ? { active: best, fresh: false } : null;
  }

  /** @returns 'pan' if the press is for the view */
  press(p: Point, options: PressOptions): "edit" | "pan" {
    this.moved = false;
    const grip = this.draft?.kind === "polygon" && this.draft.points.length ? null : this.grip(p, options.reach);
    if (grip) {
      const item = this.primary!;
      if (options.alt && grip.active.kind === "corner" && !grip.fresh) {
        this.deleteActive(item, grip.active.corner);
        return "edit";
      }
      const place = grip.fresh ? p : this.placeOfActive(item.shape, grip.active)!;
      this.drag = { kind: "active", key: item.key, shape: item.shape, ...grip, off: [place[0] - p[0], place[1] - p[1]] };
      return "edit";
    }
    if (this.tool === "polygon") {
      const draft = this.draft;
      if (draft?.kind !== "polygon") {
        this.select([], false);
        this.beginPolygon(p, false);
      } else if (draft.points.length > 2 && distance(draft.points[0]!, p) <= options.reach) {
        this.closePolygon();
        return "edit";
      }
      this.drag = { kind: "place", from: p };
      return "edit";
    }
    if (this.tool === "keypoint") {
      const item = this.keypointObject();
      if (!item) return "pan";
      const [shape, index] = this.withSkeleton(item.shape);
      if (index >= 0) {
        this.putKeypoint(item, shape, index, p);
        return "edit";
      }
    }
    if (this.tool === "box") {
      this.drag = { kind: "draw", from: inside(p, this.size) };
      return "edit";
    }
    const found = this.at(p, options.reach / 2);
    if (!found) return "pan";
    const was = this.selected.includes(found.key);
    if (options.shift) {
      this.toggle(found.key);
      return "edit";
    }
    if (!was) this.select([found.key]);
    // A finger that pans begins anywhere: it moves only what was selected before.
    if (options.touch && !was) return "pan";
    this.drag = { kind: "move", from: p, keys: [...this.selected] };
    return "edit";
  }

  /** The pointer moved: with a press, by more than `slack` pixels of the image, it drags. */
  move(p: Point, slack: number): void {
    const drag = this.drag;
    if (this.draft?.kind === "polygon" && (!drag || drag.kind === "place")) {
      const draft = this.draft;
      this.draft = { ...draft, cursor: inside(p, this.size), byKeys: false };
      const end = this.moved ? draft.points.at(-1) : drag?.from;
      if (drag && end && distance(end, p) > slack * 4) {
        if (!this.moved) this.placePoint(end); // drawn freehand
        this.moved = true;
        this.placePoint(p);
      }
      this.emit("overlay");
      return;
    }
    if (!drag) return;
    if (drag.kind === "move") {
      const by: Point = [p[0] - drag.from[0], p[1] - drag.from[1]];
      if (!this.moved && Math.hypot(...by) < slack) return;
      this.moved = true;
      const items = this.items.filter((item) => drag.keys.includes(item.key));
      const shapes = moveShapes(items.map((item) => item.shape), by, this.size);
      this.preview = new Map(items.map((item, i) => [item.key, shapes[i]!]));
    } else if (drag.kind === "active") {
      const to: Point = [p[0] + drag.off[0], p[1] + drag.off[1]];
      if (!this.moved) {
        const at = this.placeOfActive(drag.shape, drag.active);
        if (!drag.fresh && at && distance(at, to) < slack) return;
        this.moved = true;
        if (drag.fresh && drag.active.kind === "corner") {
          const [shape, corner] = insertCorner(drag.shape, drag.active.corner, p, this.size);
          drag.shape = shape;
          drag.active = { kind: "corner", corner };
          drag.fresh = false;
          drag.off = [0, 0];
        }
        this.active = drag.active.kind === "handle" ? null : drag.active;
      }
      this.preview = new Map([[drag.key, this.movedActive(drag.shape, drag.active, to)]]);
    } else if (drag.kind === "draw") {
      const to = inside(p, this.size);
      if (!this.moved && distance(drag.from, to) < slack) return;
      this.moved = true;
      this.draft = { kind: "box", from: drag.from, to };
    }
    this.emit("overlay");
  }

  release(p: Point, options: PressOptions): void {
    const drag = this.drag;
    if (!drag) return;
    this.drag = null;
    if (drag.kind === "place") {
      const draft = this.draft;
      if (this.moved && draft?.kind === "polygon" && draft.points.length > 2 && distance(draft.points[0]!, p) <= options.reach) {
        return this.closePolygon();
      }
      if (!this.moved) this.placePoint(p);
      return;
    }
    if (drag.kind === "draw") {
      const draft = this.draft;
      this.draft = null;
      if (this.moved && draft?.kind === "box") {
        const [[x1, y1], [x2, y2]] = [draft.from, draft.to];
        const box: Box = [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
        if (box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST) {
          this.add({ box });
          return;
        }
      }
      this.emit("overlay");
      const found = this.moved ? null : this.at(p, options.reach / 2);
      if (found && options.shift) this.toggle(found.key);
      else if (!this.moved) this.select(found ? [found.key] : []);
      return;
    }
    const preview = this.preview;
    this.preview = new Map();
    if (!this.moved) {
      if (drag.kind === "active" && drag.active.kind !== "handle" && !drag.fresh) {
        this.active = drag.active;
        this.tellActive();
      } else if (drag.kind === "move") {
        const found = this.at(p, options.reach / 2);
        if (found) this.select([found.key]);
      }
      this.emit("overlay", "selection");
      return;
    }
    const step: Step = drag.kind === "move" ? "move" : drag.active.kind === "handle" ? "resize" : drag.active.kind;
    if (!this.replace(step, preview)) this.emit("overlay", "selection");
    const item = this.primary;
    const box = item && boundsOf(item.shape);
    if (!item || !box) return;
    if (drag.kind === "active" && drag.active.kind !== "handle") this.tellActive();
    else this.say({ what: drag.kind === "move" ? "moved" : "resized", label: item.shape.label, box });
    this.tellCrossed(item.key);
  }

  /** The system took the pointer, or a second finger came: nothing happened. */
  abort(): void {
    this.drag = null;
    this.preview = new Map();
    if (this.draft?.kind === "box") this.draft = null;
    this.emit("overlay", "selection");
  }

  /** A click on nothing with the selecting tool. */
  clickNothing(): void {
    if (this.tool !== "polygon") this.select([], false);
  }
}
