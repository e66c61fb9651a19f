/** Tools, predictions, classes, the selection and the objects: always in view beside the image. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Button } from "../../components/Button";
import { Slider, Switch } from "../../components/Field";
import { Icon, type IconName } from "../../components/Icon";
import { classColour } from "../../colours";
import { percent } from "../../text";
import type { Editor, Tool } from "./engine/editor";
import { isCrossed } from "./engine/geometry";
import { kindOf, type Item, type Kind, type Visibility } from "./engine/shape";
import { text } from "./text";
import { useVersion } from "./version";

export interface PanelProps {
  editor: Editor;
  /** The input that C goes to, and the slider that T goes to. */
  search: { current: HTMLInputElement | null };
  threshold: { current: HTMLElement | null };
  /** Keys go to the image again. */
  toStage: () => void;
  reveal: () => void;
}

const ICONS: Record<Tool, IconName> = { select: "pointer", box: "box", polygon: "polygon", keypoint: "point" };
const KINDS: Record<Kind, IconName> = { box: "box", polygon: "polygon", pose: "point", class: "data" };

export function Panel(props: PanelProps) {
  const { editor } = props;
  return (
    <>
      {editor.task !== "classify" && <Tools editor={editor} />}
      <Predictions editor={editor} threshold={props.threshold} />
      <Classes editor={editor} search={props.search} toStage={props.toStage} />
      <Selection editor={editor} />
      <Objects editor={editor} reveal={props.reveal} />
    </>
  );
}

function Tools({ editor }: { editor: Editor }) {
  useVersion(editor, ["tool"]);
  const t = text();
  const tools: Tool[] = ["select", "box", "polygon"];
  if (editor.keypointNames.length) tools.push("keypoint");
  const choose = (tool: Tool) => (tool === "keypoint" ? editor.keypointKey() : editor.setTool(tool));
  return (
    <section class="annotate-section" aria-label={t.tools}>
      <div class="annotate-tools">
        {tools.map((tool) => (
          <button key={tool} type="button" class="annotate-tool" aria-pressed={editor.tool === tool} onClick={() => choose(tool)}>
            <Icon name={ICONS[tool]} />
            <span>{t.tool[tool]}</span>
            <kbd aria-hidden="true">{t.toolKeys[tool]}</kbd>
          </button>
        ))}
      </div>
    </section>
  );
}

function Predictions({ editor, threshold }: { editor: Editor; threshold: { current: HTMLElement | null } }) {
  useVersion(editor, ["items", "suggestions"]);
  const t = text();
  const element = useRef<HTMLElement>(null);
  const any = editor.items.some((item) => item.suggested);
  useEffect(() => {
    threshold.current = element.current?.querySelector<HTMLElement>("input[type=range]") ?? null;
  });
  if (!any) return null;
  const count = editor.suggestionCount;
  return (
    <section class="annotate-section" ref={element}>
      <h2>{t.predictions}</h2>
      <Switch label={t.showPredictions} checked={editor.suggestionsShown} onChange={(on) => editor.showSuggestions(on)} />
      <Slider label={t.threshold} value={editor.threshold} shown={percent(editor.threshold, 0)} onInput={(value) => editor.setThreshold(value)} />
      <Button
        size="small"
        icon="check"
        reason={!editor.suggestionsShown ? t.predictionsHidden : !count && t.nonePredicted}
        onClick={() => editor.acceptShown()}
      >
        {t.acceptShown(count)}
      </Button>
    </section>
  );
}

function Classes({ editor, search, toStage }: { editor: Editor; search: { current: HTMLInputElement | null }; toStage: () => void }) {
  useVersion(editor, ["classes", "items", "selection"]);
  const t = text();
  const [wanted, setWanted] = useState("");
  const sought = wanted.trim().toLowerCase();
  const counts = new Map<string, number>();
  for (const { shape, suggested } of editor.items) {
    if (!suggested) counts.set(shape.label, (counts.get(shape.label) ?? 0) + 1);
  }
  const found = editor.classes.filter((name) => name.toLowerCase().includes(sought));
  // A name that begins as was typed comes before one that only contains it.
  const first = found.find((name) => name.toLowerCase() === sought) ?? found.find((name) => name.toLowerCase().startsWith(sought)) ?? found[0];
  const exact = editor.classes.some((name) => name.toLowerCase() === sought);
  const choose = (name: string) => {
    editor.addClass(name);
    setWanted("");
    toStage();
  };
  const classify = editor.task === "classify";
  return (
    <section class="annotate-section">
      <h2>{classify ? t.imageClasses : t.classes}</h2>
      <input
        ref={(input) => {
          search.current = input;
        }}
        type="search"
        aria-label={t.classSearch}
        placeholder={`${t.classSearch} (C)`}
        value={wanted}
        onInput={(event) => setWanted(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Enter" && sought) choose(first ?? wanted);
          if (event.key === "Escape") {
            event.preventDefault();
            setWanted("");
            toStage();
          }
        }}
      />
      {sought && !exact && (
        <Button size="small" icon="plus" onClick={() => choose(wanted)}>
          {t.addClass(wanted.trim())}
        </Button>
      )}
      {!editor.classes.length && !sought && <p class="hint">{t.noClass}</p>}
      <ul class="plain annotate-classes">
        {found.map((name) => {
          const index = editor.classes.indexOf(name);
          const pressed = classify ? counts.has(name) : name === editor.currentClass;
          return (
            <li key={name}>
              <button type="button" aria-pressed={pressed} title={pressed && !classify ? t.currentClass : undefined} onClick={() => editor.setClass(name)}>
                <kbd aria-hidden="true">{index < 9 ? index + 1 : ""}</kbd>
                <Swatch index={index} />
                <span class="clip grow">{name}</span>
                {classify ? pressed && <Icon name="check" size={16} /> : <span class="muted">{counts.get(name) ?? ""}</span>}
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

function Swatch({ index, dashed = false }: { index: number; dashed?: boolean }) {
  return <span class={dashed ? "annotate-swatch dashed" : "annotate-swatch"} style={{ color: classColour(index) }} />;
}

/** What can be done with the selected objects, for fingers and mice; and the keypoints. */
function Selection({ editor }: { editor: Editor }) {
  useVersion(editor, ["items", "selection", "tool"]);
  const t = text();
  const items = editor.selectedItems;
  const primary = editor.primary;
  if (!primary) return null;
  const suggested = items.every((item) => item.suggested);
  const acceptable = items.some((item) => item.suggested || item.shape.source === "model");
  const next = editor.nextKeypoint;
  const states = t.visibility.split("|");
  const { keypoints } = primary.shape;
  return (
    <section class="annotate-section">
      <h2>{t.selected(items.length)}</h2>
      <div class="row">
        {acceptable && (
          <Button size="small" icon="check" onClick={() => editor.acceptSelected()} title={`${t.accept} (A)`}>
            {t.accept}
          </Button>
        )}
        {!suggested && (
          <Button size="small" icon="copy" onClick={() => editor.duplicate()} title={`${t.duplicate} (D)`}>
            {t.duplicate}
          </Button>
        )}
        <Button size="small" icon="trash" onClick={() => editor.delete()} title={`${suggested ? t.reject : t.delete} (Delete)`}>
          {suggested ? t.reject : t.delete}
        </Button>
      </div>
      {next && <p class="hint">{t.placeNext(next)}</p>}
      {items.length === 1 && keypoints.length > 0 && (
        <ul class="plain annotate-points" aria-label={t.keypoints}>
          {keypoints.map((point, index) => (
            <li key={point.name}>
              <span class="clip grow">{point.name}</span>
              <select
                aria-label={point.name}
                value={point.visibility}
                onChange={(event) => editor.setVisibility(index, Number(event.currentTarget.value) as Visibility)}
              >
                {states.map((word, state) => (
                  <option key={state} value={state}>
                    {word}
                  </option>
                ))}
              </select>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

const ROW = 32; // pixels, as in annotate.css
const SPARE = 8; // rows drawn beyond the view

/** All objects. Only the rows in view exist, so that thousands cost nothing. */
function Objects({ editor, reveal }: { editor: Editor; reveal: () => void }) {
  useVersion(editor, ["items", "selection", "suggestions", "classes"]);
  const t = text();
  const list = useRef<HTMLDivElement>(null);
  const [range, setRange] = useState({ top: 0, height: 400 });
  const items = editor.visible;
  const primary = editor.primary;
  const at = primary ? items.indexOf(primary) : -1;
  const look = () => setRange({ top: list.current!.scrollTop, height: list.current!.clientHeight });
  useEffect(() => {
    const observer = new ResizeObserver(look);
    observer.observe(list.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = list.current!;
    if (at < 0) return;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * ROW - element.clientHeight;
  }, [primary?.key, items.length]);
  const first = Math.max(0, Math.floor(range.top / ROW) - SPARE);
  const last = Math.min(items.length, Math.ceil((range.top + range.height) / ROW) + SPARE);
  const selected = new Set(editor.selected);
  const rowId = (item: Item) => `annotate-object-${item.key}`;
  return (
    <section class="annotate-section annotate-objects">
      <h2>
        {t.objects} <span class="count">{items.length}</span>
      </h2>
      {!items.length && <p class="hint">{t.noObjects}</p>}
      <div
        ref={list}
        class="annotate-list"
        role="listbox"
        aria-label={t.objects}
        aria-multiselectable="true"
        aria-activedescendant={at >= first && at < last ? rowId(items[at]!) : undefined}
        tabIndex={0}
        data-list
        onScroll={look}
      >
        <div role="presentation" style={{ height: `${items.length * ROW}px` }}>
          {items.slice(first, last).map((item, offset) => (
            <Row
              key={item.key}
              id={rowId(item)}
              item={item}
              top={(first + offset) * ROW}
              index={first + offset}
              count={items.length}
              selected={selected.has(item.key)}
              colour={editor.colourIndex(item.shape.label)}
              onClick={(more) => {
                if (more) editor.toggle(item.key);
                else editor.select([item.key]);
                reveal();
              }}
              onHover={(over) => editor.hover(over ? item.key : null)}
            />
          ))}
        </div>
      </div>
    </section>
  );
}

interface RowProps {
  id: string;
  item: Item;
  top: number;
  index: number;
  count: number;
  selected: boolean;
  colour: number;
  onClick: (more: boolean) => void;
  onHover: (over: boolean) => void;
}

function Row({ id, item, top, index, count, selected, colour, onClick, onHover }: RowProps) {
  const t = text();
  const { shape, suggested } = item;
  const kind = kindOf(shape);
  const byModel = suggested || shape.source === "model";
  return (
    <div
      id={id}
      role="option"
      class="annotate-row"
      aria-selected={selected}
      aria-posinset={index + 1}
      aria-setsize={count}
      style={{ transform: `translateY(${top}px)` }}
      onClick={(event) => onClick(event.shiftKey || event.ctrlKey || event.metaKey)}
      onPointerEnter={() => onHover(true)}
      onPointerLeave={() => onHover(false)}
    >
      <Swatch index={colour} dashed={byModel} />
      <span class="clip grow">{shape.label}</span>
      {isCrossed(shape) && (
        <span class="annotate-crossed" title={t.crossed}>
          <Icon name="warn" size={16} />
          <span class="unseen">{t.crossed}</span>
        </span>
      )}
      {shape.score !== null && <span class="muted">{percent(shape.score, 0)}</span>}
      {byModel && <span class="unseen">{t.suggestion}</span>}
      <span class="muted" title={t.kind[kind]}>
        <Icon name={KINDS[kind]} size={16} />
        <span class="unseen">{t.kind[kind]}</span>
      </span>
    </div>
  );
}
