import { useState } from "preact/hooks";
import { address, answer, api, ApiError, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Badge, Empty, ErrorBox, Loading, messageOf, Notice } from "../../components/Feedback";
import { Icon } from "../../components/Icon";
import { Tabs } from "../../components/Tabs";
import { notify, notifyError } from "../../components/Toast";
import { useLoad } from "../../load";
import { link, route } from "../../router";
import { may } from "../../session";
import { ago, bytes, number, percent, time } from "../../text";
import { Activate, Delete, StartShadow, stopShadow } from "./actions";
import { Evaluate } from "./Evaluate";
import { Exports } from "./Exports";
import { fieldName, sharesOf, value, type Figures, type Model } from "./figures";
import { sourceName } from "./NamePage";
import { Promote } from "./Promote";
import { Marks, readModels, readShadow } from "./shared";
import { metricName, text } from "./text";

type Details = Schemas["ModelDetails"];

/** The parts of a report that are shown here. */
export interface Report {
  evaluation: string;
  dataset: { name: string; split: string; images: number };
  classes: ({ name: string; instances: number; images: number | null } & Figures)[];
  worst: { image: string; reason: string; file: string }[];
}

const SECTIONS = ["overview", "classes", "images", "exports"] as const;
type Section = (typeof SECTIONS)[number];

export const pathOf = (id: string) => `/metrics/${encodeURIComponent(id)}`;

export async function readReport(id: string, signal: AbortSignal, evaluation?: string): Promise<Report | null> {
  try {
    const call = api.GET("/metrics/{model_id}/report", { params: { path: { model_id: id }, query: { evaluation } }, signal });
    return (await answer(call)) as unknown as Report;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null; // it was never evaluated
    throw error;
  }
}

/** One version: what it measures, where it comes from, and what can be done with it. */
export function VersionPage({ id }: { id: string }) {
  const t = text();
  const details = useLoad((signal) => answer(api.GET("/models/{model_id}", { params: { path: { model_id: id } }, signal })), [id], ["model", "job"]);
  const models = useLoad(readModels, [], ["model"]);
  const shadow = useLoad(readShadow, [], ["model"]);
  const asked = route.value.query.get("tab") as Section | null;
  const section = asked && SECTIONS.includes(asked) ? asked : "overview";
  const model = details.data;
  const again = () => {
    details.reload();
    models.reload();
    shadow.reload();
  };
  if (!model) return details.error ? <Missing error={details.error} retry={details.reload} /> : <Loading />;
  const promoted = models.data?.models.find((one) => one.name === model.name && one.promoted && one.id !== model.id);
  return (
    <>
      <nav aria-label={t.all}>
        <a class="back" href={link(["models", model.name])}>
          <Icon name="back" size={16} />
          {model.name}
        </a>
      </nav>
      <div class="row between">
        <div class="row">
          <h1>{model.id}</h1>
          <Badge>{t.types[model.type]}</Badge>
          <Marks model={model} shadow={shadow.data?.shadow?.state === "running" ? shadow.data.shadow.model_id : null} />
        </div>
      </div>
      <Actions model={model} models={models.data?.models ?? []} compareWith={promoted?.id} shadow={shadow.data?.shadow ?? null} onDone={again} />
      <ErrorBox error={details.error} retry={details.reload} />
      <Tabs label={model.id} current={section} tabs={SECTIONS.map((one) => ({ id: one, text: t[one], href: link(["models", id], { tab: one === "overview" ? "" : one }) }))} />
      {section === "overview" && <Overview model={model} />}
      {section === "classes" && <Classes model={model} />}
      {section === "images" && <Images model={model} />}
      {section === "exports" && <Exports model={model} />}
    </>
  );
}

function Missing({ error, retry }: { error: unknown; retry: () => void }) {
  const t = text();
  if (!(error instanceof ApiError) || error.status !== 404) return <ErrorBox error={error} retry={retry} />;
  return (
    <Empty icon="models" title={t.noVersion}>
      <p class="muted">{messageOf(error)}</p>
      <a href={link(["models"])}>{t.all}</a>
    </Empty>
  );
}

type Doing = "promote" | "activate" | "delete" | "shadow" | null;

function Actions({ model, models, compareWith, shadow, onDone }: { model: Details; models: Model[]; compareWith?: string; shadow: Schemas["Shadow"] | null; onDone: () => void }) {
  const t = text();
  const [doing, setDoing] = useState<Doing>(null);
  const running = shadow?.state === "running" ? shadow : null;
  const shadowed = running?.model_id === model.id;
  const admin = !may("admin") && t.adminReason;
  const close = () => setDoing(null);
  return (
    <>
      <div class="row">
        <Button kind="primary" icon="check" reason={admin || (model.promoted && t.isPromoted)} onClick={() => setDoing("promote")}>
          {t.promote}
        </Button>
        <a class="button normal" href={link(["models", model.id, "compare"], { a: compareWith })}>
          {t.compare}
        </a>
        <a class="button normal" href={link(["try"], { a: model.id })}>
          {t.tryIt}
        </a>
        <Button reason={admin || (model.active && t.isActive)} onClick={() => setDoing("activate")}>
          {t.activate}
        </Button>
        {shadowed ? (
          <Button
            icon="stop"
            reason={admin}
            onClick={() =>
              stopShadow()
                .then((told) => {
                  notify(told);
                  onDone();
                })
                .catch(notifyError)
            }
          >
            {t.stopShadow}
          </Button>
        ) : (
          <Button reason={admin || (model.active && t.isActive)} onClick={() => setDoing("shadow")}>
            {t.startShadow}
          </Button>
        )}
        <Button kind="danger" icon="trash" reason={admin || (model.active && t.deleteActive)} onClick={() => setDoing("delete")}>
          {t.delete}
        </Button>
      </div>
      {shadowed && running && <Notice>{running.run && running.agreement !== null ? t.shadowNow(number(running.run), percent(running.agreement)) : t.shadowWaits}</Notice>}
      {doing === "promote" && <Promote model={model} onClose={close} onDone={onDone} />}
      {doing === "activate" && <Activate model={model} onClose={close} onDone={onDone} />}
      {doing === "delete" && <Delete model={model} onClose={close} onDone={onDone} />}
      {doing === "shadow" && <StartShadow model={model} models={models} running={running} onClose={close} onDone={onDone} />}
    </>
  );
}

const TIMES = ["preprocess_time", "inference_time", "postprocess_time"];

function Overview({ model }: { model: Details }) {
  const t = text();
  const [evaluating, setEvaluating] = useState(false);
  const figures = model.metrics;
  const reason = !may("train") && t.trainReason;
  return (
    <div class="stack">
      {figures ? (
        <>
          <dl class="tiles models-tiles">
            {sharesOf(model.type, figures).map((name) => (
              <div class="tile" key={name}>
                <dt>{metricName(name, fieldName(name))}</dt>
                <dd>{percent(value(figures, name))}</dd>
              </div>
            ))}
            {TIMES.filter((name) => value(figures, name) !== null).map((name) => (
              <div class="tile" key={name}>
                <dt>{metricName(name, null)}</dt>
                <dd>{number(value(figures, name), 1)}</dd>
              </div>
            ))}
          </dl>
          <div class="row between">
            <p class="muted small">
              {t.measuredOn(String(figures.dataset ?? "–"), String(figures.split ?? "–"), number(value(figures, "images")))}
              {typeof figures.last_updated === "string" && ` · ${ago(figures.last_updated)}`}
            </p>
            <div class="row">
              {typeof figures.evaluation === "string" && (
                <a class="button small" href={address(`${pathOf(model.id)}/report.html`)} target="_blank" rel="noopener">
                  <Icon name="link" size={16} />
                  {t.report}
                </a>
              )}
              <Button size="small" reason={reason} onClick={() => setEvaluating(true)}>
                {t.evaluate}
              </Button>
            </div>
          </div>
        </>
      ) : (
        <Empty icon="train" title={t.notEvaluated}>
          <p class="muted">{t.evaluateHint}</p>
          <Button kind="primary" reason={reason} onClick={() => setEvaluating(true)}>
            {t.evaluate}
          </Button>
        </Empty>
      )}
      <div class="columns">
        <Lineage model={model} />
        <Engine model={model} />
      </div>
      {evaluating && <Evaluate model={model} onClose={() => setEvaluating(false)} />}
    </div>
  );
}

function Lineage({ model }: { model: Details }) {
  const t = text();
  const source = model.source;
  const words = (name: string) => (typeof source[name] === "string" && source[name] ? String(source[name]) : null);
  const parent = words("parent");
  const job = words("job_id");
  return (
    <section class="card stack">
      <h2>{t.lineage}</h2>
      <dl class="models-facts">
        <Fact name={t.facts.kind}>{sourceName(model)}</Fact>
        {parent && (
          <Fact name={t.facts.parent}>
            <a class="mono" href={link(["models", parent])}>
              {parent}
            </a>
          </Fact>
        )}
        {words("start") && <Fact name={t.facts.start}>{words("start")}</Fact>}
        {words("mode") && <Fact name={t.facts.mode}>{words("mode")}</Fact>}
        {words("teacher") && <Fact name={t.facts.teacher}>{words("teacher")}</Fact>}
        {words("dataset") && <Fact name={t.facts.dataset}>{words("dataset")}</Fact>}
        {job && (
          <Fact name={t.facts.job}>
            <a class="mono" href={link(["train", job])}>
              {job.slice(0, 8)}
            </a>
          </Fact>
        )}
        {words("file") && <Fact name={t.facts.file}>{words("file")}</Fact>}
        <Fact name={t.facts.created}>{time(model.created_at)}</Fact>
        <Fact name={t.facts.family}>{model.family}</Fact>
        <Fact name={t.facts.size}>{bytes(model.size_bytes)}</Fact>
        {model.description && <Fact name={t.facts.description}>{model.description}</Fact>}
      </dl>
    </section>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Engine({ model }: { model: Details }) {
  const t = text();
  const choice = model.engines;
  return (
    <section class="card stack">
      <h2>{t.engine}</h2>
      <dl class="models-facts">
        <Fact name={t.engineNow}>{model.engine ?? <span class="muted">{t.notLoaded}</span>}</Fact>
        {choice && <Fact name={t.why}>{choice.reason}</Fact>}
      </dl>
      {choice ? (
        <div class="table" tabIndex={0} role="region" aria-label={t.engineTrials}>
          <table>
            <thead>
              <tr>
                <th>{t.engine}</th>
                <th>{t.usable}</th>
                <th class="number">{t.speed}</th>
                <th>{t.note}</th>
              </tr>
            </thead>
            <tbody>
              {choice.engines.map((one) => (
                <tr key={one.engine}>
                  <td class="nowrap">{one.engine}</td>
                  <td class="nowrap">
                    <Icon name={one.usable ? "check" : "close"} size={14} /> {one.usable ? t.yes : t.no}
                  </td>
                  <td class="number">{percent(one.relative_time, 0)}</td>
                  <td>{one.note}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p class="muted small">{t.noTrials}</p>
      )}
    </section>
  );
}

function NoReport() {
  return (
    <Empty icon="train" title={text().noReport}>
      <p class="muted">{text().evaluateHint}</p>
    </Empty>
  );
}

const COLUMNS = ["accuracy", "mAP50_95", "mAP50", "mask_mAP50_95", "pose_mAP50_95", "precision", "recall", "f1_score"];

function Classes({ model }: { model: Details }) {
  const t = text();
  const report = useLoad((signal) => readReport(model.id, signal), [model.id], ["model"]);
  if (report.error) return <ErrorBox error={report.error} retry={report.reload} />;
  if (report.data === undefined) return <Loading />;
  if (report.data === null) return <NoReport />;
  const { classes } = report.data;
  const columns = COLUMNS.filter((name) => classes.some((row) => value(row, name) !== null));
  const first = columns[0];
  const sorted = first ? [...classes].sort((a, b) => (value(a, first) ?? 2) - (value(b, first) ?? 2)) : classes;
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t.classes}>
      <table>
        <thead>
          <tr>
            <th>{t.class}</th>
            <th class="number">{t.instances}</th>
            {columns.map((name) => (
              <th key={name} class="number">
                {metricName(name, fieldName(name))}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row) => (
            <tr key={row.name}>
              <td>{row.name}</td>
              <td class="number">{number(row.instances)}</td>
              {columns.map((name) => (
                <td key={name} class="number">
                  {percent(value(row, name))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Images({ model }: { model: Details }) {
  const t = text();
  const report = useLoad((signal) => readReport(model.id, signal), [model.id], ["model"]);
  if (report.error) return <ErrorBox error={report.error} retry={report.reload} />;
  if (report.data === undefined) return <Loading />;
  if (report.data === null) return <NoReport />;
  const { worst, evaluation } = report.data;
  if (!worst.length) return <Notice kind="good">{t.noWorst}</Notice>;
  return (
    <div class="stack">
      <p class="muted">{t.worstHint}</p>
      <ul class="plain models-worst">
        {worst.map((one) => (
          <li key={one.file}>
            <figure class="card">
              <img loading="lazy" src={address(`${pathOf(model.id)}/${one.file}?evaluation=${evaluation}`)} alt={t.worstAlt(one.image)} />
              <figcaption>
                <p>{one.reason}</p>
                <p class="muted small clip" title={one.image}>
                  {one.image}
                </p>
              </figcaption>
            </figure>
          </li>
        ))}
      </ul>
    </div>
  );
}
