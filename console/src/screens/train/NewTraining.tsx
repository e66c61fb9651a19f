import { useEffect, useRef, useState } from "preact/hooks";
import { answer, api, ApiError, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { ErrorBox, Loading, Notice } from "../../components/Feedback";
import { Icon, type IconName } from "../../components/Icon";
import { SchemaForm, type Control } from "../../components/SchemaForm";
import { bodyOf, fieldOf, valuesOf, type FormField, type Values } from "../../components/schema-fields";
import { notify } from "../../components/Toast";
import { useLoad } from "../../load";
import { link, navigate, route } from "../../router";
import { may } from "../../session";
import { said } from "../../said";
import { wordsOf } from "./fields";
import { formOf } from "./forms";
import { readJob } from "./jobs";
import { MODES, requested, type ModePath } from "./settings";
import { text } from "./text";

type Dataset = Schemas["Dataset"];
type Model = Schemas["Model"];

const ICONS: Record<ModePath, IconName> = { regular: "train", "freeze-strategy": "menu", incremental: "plus", distillation: "copy" };
const TYPES: Record<string, Model["type"]> = { detect: "detection", segment: "segmentation", classify: "classification", pose: "pose" };
const SCALES = ["n", "s", "m", "l", "x"] as const;

/** Four cards: how the model should learn. */
export function ModeChoice() {
  const t = text();
  return (
    <>
      <Back />
      <h1>{t.choose}</h1>
      <div class="train-modes">
        {MODES.map((mode) => (
          <a key={mode} class="card train-mode" href={link(["train", "new", mode], { dataset: route.value.query.get("dataset") })}>
            <Icon name={ICONS[mode]} size={24} />
            <span class="stack tight">
              <strong>{t.modes[mode].name}</strong>
              <span class="muted">{t.modes[mode].what}</span>
            </span>
          </a>
        ))}
      </div>
    </>
  );
}

function Back() {
  return (
    <a class="back" href={link(["train"])}>
      <Icon name="back" size={16} />
      {text().back}
    </a>
  );
}

export function NewTraining({ mode }: { mode: ModePath }) {
  const t = text();
  const { query } = route.value;
  const from = query.get("from");
  const read = useLoad(async (signal) => {
    const [fields, datasets, models, job] = await Promise.all([
      formOf(mode),
      answer(api.GET("/api/datasets", { signal })),
      answer(api.GET("/models", { signal })),
      from ? readJob(from, signal) : null,
    ]);
    const before = job ? valuesOf(fields, requested(job.config as Record<string, unknown>)) : {};
    if (job && query.get("resume")) before.resume_weights = job.job_id;
    return { fields, datasets: datasets.datasets, models: models.models, before };
  }, [mode, from]);
  return (
    <>
      <Back />
      <div class="stack tight">
        <h1>
          {t.new}: {t.modes[mode].name}
        </h1>
        <p class="muted">
          {t.modes[mode].what} <a href={link(["train", "new"])}>{t.otherMode}</a>
        </p>
      </div>
      {from && <Notice>{query.get("resume") ? t.resuming(from.slice(0, 8)) : t.from(from.slice(0, 8))}</Notice>}
      <ErrorBox error={read.error} retry={read.reload} />
      {read.data ? <Form mode={mode} {...read.data} /> : read.loading && <Loading />}
    </>
  );
}

interface FormProps {
  mode: ModePath;
  fields: FormField[];
  datasets: Dataset[];
  models: Model[];
  before: Values;
}

function Form({ mode, fields: all, datasets, models, before }: FormProps) {
  const t = text();
  const chosen = route.value.query.get("dataset");
  const [values, setValues] = useState<Values>(() => {
    const first = datasets.find(({ id }) => id === chosen);
    return first ? { data_path: first.id, task: first.task, ...before } : before;
  });
  const [failed, setFailed] = useState<unknown>(null);
  const [sending, setSending] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const dataset = datasets.find(({ id }) => id === values.data_path);
  const task = String(values.task ?? "detect");
  const mobilenet = isMobilenet(String(values.base_model_path ?? values.model_type ?? ""), models);
  const family = mobilenet ? "mobilenet" : "yolo";
  const fields = all.filter(({ schema }) => fits(schema, task, family));
  const change = (name: string, value: unknown) => {
    setFailed(null);
    setValues((old) => {
      const next = { ...old, [name]: value };
      const data = name === "data_path" && datasets.find(({ id }) => id === value);
      if (data) next.task = data.task;
      if (name === "data_path" || name === "task") dropUnfit(next, models);
      return next;
    });
  };
  const reason = reasonAgainst(fields, values, dataset, task);
  const message = failed instanceof ApiError ? failed.message : "";
  const wrong = message ? fieldOf(message, fields) : null;
  useEffect(() => {
    if (wrong) requestAnimationFrame(() => form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
  }, [failed]);
  const start = async () => {
    setSending(true);
    try {
      const known = new Set(fields.map(({ name }) => name));
      const body = bodyOf(Object.fromEntries(Object.entries(values).filter(([name]) => known.has(name))));
      // One of four bodies, by the mode; the form was made from this mode's.
      const path = `/api/training/${mode}` as "/api/training/regular";
      const { task_id } = await answer(api.POST(path, { body: body as Schemas["RegularTraining"] }));
      notify(t.started(String(values.name || task_id.slice(0, 8))));
      navigate(["train", task_id]);
    } catch (error) {
      setFailed(error);
    } finally {
      setSending(false);
    }
  };
  const controls: Record<string, Control> = {
    data_path: datasetControl(datasets, t.chooseDataset),
    old_data_path: datasetControl(datasets.filter((one) => one.task === task), t.noOldData),
    model_type: startControl(models, task),
    base_model_path: modelControl(models, task),
    teacher_model_path: modelControl(models.filter((one) => one.family === family), task), // the student's
  };
  return (
    <form
      ref={form}
      class="stack"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!reason && !sending) void start();
      }}
    >
      <div class="card stack">
        {!datasets.length && (
          <Notice kind="warn">
            {t.noDatasets} <a href={link(["data"])}>{t.toData}</a>
          </Notice>
        )}
        <SchemaForm
          fields={fields}
          values={values}
          onChange={change}
          errors={wrong ? { [wrong]: said(message) } : {}}
          words={{ field: wordsOf, group: (name) => (t.groups as Record<string, string>)[name] ?? name }}
          controls={controls}
          advanced={t.advanced}
          standard={(fallback) => t.standard(fallback === undefined ? "" : String(fallback))}
        />
      </div>
      {dataset && <Report dataset={dataset} />}
      {failed !== null && !wrong && <ErrorBox error={failed} />}
      <div class="row train-start">
        <Button kind="primary" type="submit" busy={sending} reason={reason}>
          {t.start}
        </Button>
        {reason && (
          <span class="muted" aria-hidden="true">
            {reason}
          </span>
        )}
      </div>
    </form>
  );
}

/** Why a training cannot be started yet; null: it can. */
function reasonAgainst(fields: FormField[], values: Values, dataset: Dataset | undefined, task: string): string | null {
  const t = text();
  if (!may("train")) return t.mayNot;
  if (!values.data_path) return t.notYet.dataset;
  const missing = fields.find(({ name, required }) => required && !values[name]);
  if (dataset && !dataset.usable) return t.notYet.fatal(said(dataset.problems.find(({ fatal }) => fatal)?.message ?? ""));
  if (dataset && dataset.task !== task) return t.notYet.task(dataset.task, task);
  return missing ? t.notYet.field(wordsOf(missing).title) : null;
}

function isMobilenet(value: string, models: Model[]): boolean {
  return value.startsWith("mobilenet") || models.find(({ id }) => id === value)?.family === "mobilenet";
}

function fits(schema: FormField["schema"], task: string, family: string): boolean {
  return (schema["x-tasks"] ?? [task]).includes(task) && (schema["x-families"] ?? [family]).includes(family);
}

/** Models of another task are taken out again when the task changes. */
function dropUnfit(values: Values, models: Model[]): void {
  const type = TYPES[String(values.task ?? "detect")];
  for (const name of ["model_type", "base_model_path", "teacher_model_path"]) {
    const model = models.find(({ id }) => id === values[name]);
    const unfit = model ? model.type !== type : values[name] === "mobilenet" && values.task !== "classify";
    if (unfit) delete values[name];
  }
}

function trainImages(dataset: Dataset): number {
  return (dataset.splits.train ?? { usable: 0 }).usable;
}

function datasetControl(datasets: Dataset[], none: string): Control {
  return (field, value, change, id) => (
    <select id={id} value={String(value ?? "")} required={field.required} onChange={(event) => change(event.currentTarget.value || undefined)}>
      <option value="">{none}</option>
      {typeof value === "string" && value && !datasets.some((one) => one.id === value) && <option value={value}>{value}</option>}
      {datasets.map((dataset) => (
        <option key={dataset.id} value={dataset.id}>
          {dataset.name} · {dataset.task} · {trainImages(dataset)}
          {dataset.usable ? "" : " ⚠"}
        </option>
      ))}
    </select>
  );
}

function fitting(models: Model[], task: string): Model[] {
  return models.filter(({ type }) => type === TYPES[task]);
}

function modelOptions(models: Model[]) {
  return models.map(({ id, promoted }) => (
    <option key={id} value={id}>
      {id}
      {promoted ? " ✓" : ""}
    </option>
  ));
}

/** A model of this server that fits the task. */
function modelControl(models: Model[], task: string): Control {
  const t = text();
  const found = fitting(models, task);
  return (field, value, change, id) => (
    <>
      <select id={id} value={String(value ?? "")} required={field.required} onChange={(event) => change(event.currentTarget.value || undefined)}>
        <option value="">{t.chooseModel}</option>
        {typeof value === "string" && value && !found.some((one) => one.id === value) && <option value={value}>{value}</option>}
        {modelOptions(found)}
      </select>
      {!found.length && <p class="hint">{t.noModels}</p>}
    </>
  );
}

/** Pretrained weights of a size, or a model of this server. */
function startControl(models: Model[], task: string): Control {
  const t = text();
  const found = fitting(models, task);
  const light = task === "classify";
  return (field, value, change, id) => {
    const current = String(value ?? field.fallback ?? "");
    const known = [...SCALES, "mobilenet", ...found.map((one) => one.id)];
    return (
      <select id={id} value={current} onChange={(event) => change(event.currentTarget.value)}>
        {!known.includes(current) && <option value={current}>{current}</option>}
        <optgroup label={t.pretrained}>
          {SCALES.map((scale) => (
            <option key={scale} value={scale}>
              {t.scales[scale]}
            </option>
          ))}
          {light && <option value="mobilenet">{t.mobilenet}</option>}
        </optgroup>
        {found.length > 0 && <optgroup label={t.registered}>{modelOptions(found)}</optgroup>}
      </select>
    );
  };
}

/** What the check of the chosen dataset found. */
function Report({ dataset }: { dataset: Dataset }) {
  const t = text();
  const fatal = !dataset.usable;
  return (
    <Notice kind={fatal ? "error" : dataset.problems.length ? "warn" : "good"}>
      {!fatal && <p>{t.usable(trainImages(dataset), dataset.classes.length)}</p>}
      {dataset.problems.length > 0 && (
        <>
          <p>{t.problems(dataset.problems.length)}</p>
          <ul>
            {dataset.problems.slice(0, 4).map(({ message }) => (
              <li key={message}>{said(message)}</li>
            ))}
          </ul>
        </>
      )}
      <a href={link(["data", dataset.id])}>
        {t.reportOf}: {dataset.name}
      </a>
    </Notice>
  );
}
