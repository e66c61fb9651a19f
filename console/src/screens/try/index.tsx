import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { answer, api, base } from "../../api";
import { Button } from "../../components/Button";
import { Code } from "../../components/Copy";
import { Empty, ErrorBox, Loading, Notice } from "../../components/Feedback";
import { Field, Slider } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { useLoad } from "../../load";
import { link, route, setQuery } from "../../router";
import { may, session } from "../../session";
import { bytes } from "../../text";
import { Annotate } from "./Annotate";
import { curl, python } from "./commands";
import { colours } from "./found";
import type { Model } from "./predict";
import { Result } from "./Result";
import { text } from "./text";
import "./try.css";

interface Chosen {
  number: number;
  file: File;
  url: string;
}

const chosen = signal<Chosen | null>(null); // stays while other screens are looked at
const problem = signal<string | null>(null);
let images = 0;

function choose(file: File): void {
  const most = session.value?.limits?.body_bytes;
  const name = file.name || "image";
  if (!file.type.startsWith("image/")) problem.value = text().notImage(name);
  else if (most && file.size > most) problem.value = text().tooLarge(bytes(file.size), bytes(most));
  else {
    problem.value = null;
    if (chosen.value) URL.revokeObjectURL(chosen.value.url);
    chosen.value = { number: ++images, file, url: URL.createObjectURL(file) };
  }
}

export default function Try() {
  const t = text();
  const models = useLoad((signal) => answer(api.GET("/models", { signal })), [], ["model"]);
  const [over, setOver] = useState(false);
  usePasting();
  const query = route.value.query;
  const all = models.data?.models ?? [];
  const a = query.get("a") ?? (all.find((one) => one.active) ?? all[0])?.id ?? "";
  const b = query.get("b") ?? "";
  const threshold = within(Number(query.get("confidence") ?? 0.25));
  const image = chosen.value;
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const file = event.dataTransfer?.files[0];
    if (file) choose(file);
  };
  return (
    <div
      class={`stack try${over ? " try-over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setOver(false);
      }}
      onDrop={drop}
    >
      <div class="row between">
        <div>
          <h1>{t.title}</h1>
          <p class="muted">{t.intro}</p>
        </div>
        {image && <Pick label={t.another} />}
      </div>
      <ErrorBox error={models.error} retry={models.reload} />
      {!models.data && models.loading && <Loading />}
      {models.data && !all.length && (
        <Empty icon="models" title={t.noModels}>
          <p class="muted">{t.noModelsHint}</p>
          <a class="button primary normal" href={link(["models"])}>
            {t.toModels}
          </a>
        </Empty>
      )}
      {all.length > 0 && (
        <>
          <div class="card try-choices">
            <ModelChoice label={b ? t.modelA : t.model} models={all} value={a} onChange={(id) => setQuery({ a: id })} />
            <ModelChoice label={t.modelB} models={all} value={b} none={t.none} onChange={(id) => setQuery({ b: id })} />
            <Slider label={t.threshold} value={threshold} min={0.01} onInput={(value) => setQuery({ confidence: value })} />
          </div>
          {problem.value && <Notice kind="error">{problem.value}</Notice>}
          {image ? (
            <Shown image={image} a={a} b={b} threshold={threshold} models={all} />
          ) : (
            <div class="empty try-drop">
              <Icon name="upload" size={32} />
              <p class="empty-title">{over ? t.dropNow : t.drop}</p>
              <p class="muted">{t.dropHint}</p>
              <Pick label={t.choose} primary />
            </div>
          )}
        </>
      )}
    </div>
  );
}

function within(value: number): number {
  return Number.isFinite(value) ? Math.min(1, Math.max(0.01, value)) : 0.25;
}

function Shown({ image, a, b, threshold, models }: { image: Chosen; a: string; b: string; threshold: number; models: Model[] }) {
  const t = text();
  const [pointed, setPointed] = useState<string | null>(null);
  const [kept, setKept] = useState<string | null>(null);
  const [annotating, setAnnotating] = useState(false);
  const sides = b ? [a, b] : [a];
  const call = { url: location.origin + base, model: a, confidence: threshold, token: session.value?.token_needed ?? false, file: image.file.name || "photo.jpg" };
  const find = (id: string) => models.find((one) => one.id === id) ?? models.find((one) => one.name === id);
  const model = find(a);
  const colour = colours(sides.map(find));
  return (
    <>
      <div class={b ? "try-sides two" : "try-sides"}>
        {sides.map((id, at) => (
          <Result
            key={`${at} ${id} ${image.number}`}
            image={image}
            model={id}
            side={b ? "AB"[at]! : ""}
            threshold={threshold}
            colour={colour}
            only={pointed ?? kept}
            kept={kept}
            onPoint={setPointed}
            onKeep={(label) => setKept((before) => (before === label ? null : label))}
          />
        ))}
      </div>
      <div class="row">
        <Button icon="annotate" reason={!may("annotate") && t.annotateReason} onClick={() => setAnnotating(true)}>
          {t.annotate}
        </Button>
      </div>
      <h2>{t.use}</h2>
      <div class="columns">
        <Code label={t.commandCurl} text={curl(call)} />
        <Code label={t.commandPython} text={python(call)} />
      </div>
      {annotating && <Annotate file={image.file} model={model} onClose={() => setAnnotating(false)} />}
    </>
  );
}

function Pick({ label, primary }: { label: string; primary?: boolean }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        class="try-file"
        type="file"
        accept="image/*"
        tabIndex={-1}
        aria-hidden="true"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          if (file) choose(file);
          event.currentTarget.value = ""; // so that the same file can be chosen again
        }}
      />
      <Button kind={primary ? "primary" : "plain"} icon="upload" onClick={() => input.current?.click()}>
        {label}
      </Button>
    </>
  );
}

interface ModelChoiceProps {
  label: string;
  models: Model[];
  value: string;
  none?: string;
  onChange: (id: string) => void;
}

/** Every version, by name. */
function ModelChoice({ label, models, value, none, onChange }: ModelChoiceProps) {
  const t = text();
  const names = [...new Set(models.map((one) => one.name))].sort();
  const known = value === "" || models.some((one) => one.id === value);
  return (
    <Field label={label}>
      {(control) => (
        <select {...control} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {none !== undefined && <option value="">{none}</option>}
          {!known && <option value={value}>{value}</option>}
          {names.map((name) => (
            <optgroup key={name} label={name}>
              {models
                .filter((one) => one.name === name)
                .map((one) => {
                  const mark = one.active ? t.active : one.promoted && t.promoted;
                  return (
                    <option key={one.id} value={one.id}>
                      {mark ? `${one.id} · ${mark}` : one.id}
                    </option>
                  );
                })}
            </optgroup>
          ))}
        </select>
      )}
    </Field>
  );
}

/** An image that is pasted anywhere on the screen is tried. */
function usePasting(): void {
  useEffect(() => {
    const pasted = (event: ClipboardEvent) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      choose(file);
    };
    addEventListener("paste", pasted);
    return () => removeEventListener("paste", pasted);
  }, []);
}
