/** Loop: what happened to a model name, the newest first; one click from an entry to its report. */
import { useEffect, useState } from "preact/hooks";
import { answer, api, local, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Select } from "../../components/Field";
import { Badge, Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Icon, type IconName } from "../../components/Icon";
import { notifyError } from "../../components/Toast";
import { useLoad } from "../../load";
import { link, route, setQuery } from "../../router";
import { language } from "../../text";
import { said } from "../../said";
import { byDay, destination, nextStep, type Step } from "./entries";
import "./loop.css";
import { text } from "./text";

type Entry = Schemas["TimelineEntry"];
type Kind = Entry["kind"];

const PAGE = 50;

const ICONS: Record<Kind, IconName> = {
  corrections: "annotate",
  trained: "train",
  imported: "download",
  evaluated: "search",
  compared: "eye",
  promoted: "check",
  refused: "close",
  rolled_back: "undo",
  activated: "play",
  deleted: "trash",
  drift: "operate",
  engine: "models",
  failed: "error",
};

export default function Loop() {
  const t = text();
  const models = useLoad((signal) => answer(api.GET("/models", { signal })), [], ["model"]);
  const asked = route.value.query.get("name") ?? "";
  if (models.error && !models.data) return <Framed error={models.error} retry={models.reload} />;
  if (!models.data) return <Framed />;
  const all = models.data.models;
  const names = [...new Set([...all.map((model) => model.name), ...(asked ? [asked] : [])])].sort();
  const active = all.find((model) => model.active)?.name;
  const name = asked || active || names[0];
  if (!name) {
    return (
      <>
        <h1>{t.title}</h1>
        <Empty icon="loop" title={t.noModels}>
          <p class="muted">{t.firstModel}</p>
          <div class="row">
            <a class="button normal" href={link(["models"])}>
              {t.models}
            </a>
            <a class="button primary normal" href={link(["train", "new"])}>
              {t.train}
            </a>
          </div>
        </Empty>
      </>
    );
  }
  return (
    <>
      <div class="row between loop-title">
        <div class="grow">
          <h1>{t.title}</h1>
          <p class="muted">{t.intro}</p>
        </div>
        <div class="loop-name">
          <Select label={t.name} value={name} options={names.map((one) => [one, one] as const)} onChange={(chosen) => setQuery({ name: chosen }, false)} />
        </div>
      </div>
      <Timeline key={name} name={name} versions={all.filter((model) => model.name === name)} />
    </>
  );
}

function Framed({ error, retry }: { error?: unknown; retry?: () => void }) {
  return (
    <>
      <h1>{text().title}</h1>
      {error ? <ErrorBox error={error} retry={retry} /> : <Loading />}
    </>
  );
}

function Timeline({ name, versions }: { name: string; versions: Schemas["Model"][] }) {
  const t = text();
  const kind = (Object.keys(t.kinds) as Kind[]).find((one) => one === route.value.query.get("kind"));
  const read = (before?: string, signal?: AbortSignal) =>
    answer(api.GET("/models/{name}/timeline", { params: { path: { name }, query: { kind: kind ? [kind] : undefined, limit: PAGE, before } }, signal }));
  const first = useLoad((signal) => read(undefined, signal), [name, kind ?? ""], ["model", "dataset", "job"]);
  const [older, setOlder] = useState<{ after: string; entries: Entry[]; before: string | null }>();
  const [busy, setBusy] = useState(false);
  useEffect(() => setOlder(undefined), [kind]);
  const listed = first.data?.entries ?? [];
  // Older pages stay as long as they follow what is listed before them.
  const seen = new Set(listed.map((entry) => entry.id));
  const entries = [...listed, ...(older?.entries.filter((entry) => !seen.has(entry.id)) ?? [])];
  const before = older ? older.before : (first.data?.before ?? null);
  const more = () => {
    setBusy(true);
    read(before!)
      .then((page) => setOlder({ after: before!, entries: [...(older?.entries ?? entries.slice(0, PAGE)), ...page.entries], before: page.before }))
      .catch(notifyError)
      .finally(() => setBusy(false));
  };
  return (
    <>
      {!kind && first.data && <Next step={nextStep(entries, versions)} />}
      <div class="loop-kinds" role="group" aria-label={t.filter}>
        <Button size="small" pressed={!kind} onClick={() => setQuery({ kind: null })}>
          {t.all}
        </Button>
        {(Object.keys(t.kinds) as Kind[]).map((one) => (
          <Button key={one} size="small" icon={ICONS[one]} pressed={one === kind} onClick={() => setQuery({ kind: one === kind ? null : one })}>
            {t.kinds[one]}
          </Button>
        ))}
      </div>
      <ErrorBox error={first.error} retry={first.reload} />
      {!first.data ? (
        !first.error && <Loading />
      ) : entries.length ? (
        byDay(entries, day).map(([of, some]) => (
          <section key={of} class="loop-day">
            <h2>{of}</h2>
            <ol class="plain loop-entries">
              {some.map((entry) => (
                <Row key={entry.id} entry={entry} />
              ))}
            </ol>
          </section>
        ))
      ) : (
        <Empty icon="loop" title={t.nothing}>
          <Button onClick={() => setQuery({ kind: null })}>{t.showAll}</Button>
        </Empty>
      )}
      {before && (
        <div class="row">
          <Button busy={busy} onClick={more}>
            {t.older}
          </Button>
        </div>
      )}
    </>
  );
}

function day(at: string): string {
  return new Date(at).toLocaleDateString(language.value === "zh" ? "zh-CN" : "en-GB", { dateStyle: "full" });
}

function clock(at: string): string {
  return new Date(at).toLocaleTimeString(language.value === "zh" ? "zh-CN" : "en-GB", { timeStyle: "short" });
}

function Next({ step }: { step: Step }) {
  const t = text();
  const [told, act, href] =
    step.kind === "promote"
      ? [t.nextPromote, t.goPromote, link(["models", step.candidate, "compare"], { a: step.promoted })]
      : step.kind === "train"
        ? [t.nextTrain, t.goTrain, link(["train", "new"], { dataset: step.dataset })]
        : [t.nextCorrect, t.goCorrect, link(["data"])];
  return (
    <section class="card row between loop-next" aria-label={t.next}>
      <p class="grow">
        <strong>{t.next}:</strong> {told}
      </p>
      <a class="button normal" href={href}>
        {act}
      </a>
    </section>
  );
}

function Row({ entry }: { entry: Entry }) {
  const t = text();
  const where = destination(entry);
  const who = entry.who === "open" ? t.open : entry.who;
  return (
    <li class={`loop-entry loop-${entry.kind}`}>
      <span class="loop-icon">
        <Icon name={ICONS[entry.kind]} size={16} />
      </span>
      <div class="loop-body">
        <p class="row loop-head">
          <strong>{t.kinds[entry.kind]}</strong>
          {entry.forced && <Badge kind="warn">{t.forced}</Badge>}
          <span class="muted small">
            <time dateTime={entry.at}>{clock(entry.at)}</time>
            {who && ` · ${t.by(who)}`}
          </span>
        </p>
        <p class="loop-text">
          {where ? (
            <a href={hrefOf(where)} target={where.to === "report" ? "_blank" : undefined} rel={where.to === "report" ? "noopener" : undefined} title={`${t.opens[where.to]}: ${entry.text}`}>
              {t.sentence(entry, entry.text)}
            </a>
          ) : (
            t.sentence(entry, entry.text)
          )}
        </p>
        {entry.regressed.length > 0 && (
          <p class="row loop-regressed">
            <span>{t.regressed}</span>
            {entry.regressed.map((name) => (
              <Badge key={name} kind="bad">
                {name}
              </Badge>
            ))}
          </p>
        )}
        {entry.reasons.length > 0 && (
          <ul class="loop-reasons">
            {entry.reasons.map((reason) => (
              <li key={reason}>{said(reason)}</li>
            ))}
          </ul>
        )}
        <p class="row loop-links small">
          {entry.report_url && (
            <a href={local(entry.report_url)} target="_blank" rel="noopener">
              {t.report}
            </a>
          )}
          {entry.compared && <a href={link(["models", entry.compared[1]!, "compare"], { a: entry.compared[0] })}>{t.compare}</a>}
          {entry.model_id && entry.kind !== "deleted" && where?.to !== "model" && <a href={link(["models", entry.model_id])}>{t.model}</a>}
          {entry.job_id && where?.to !== "job" && <a href={link(["train", entry.job_id])}>{t.job}</a>}
          {entry.kind === "corrections" && entry.dataset && where?.to !== "data" && <a href={link(["data", entry.dataset.split("@")[0]!, "revisions"])}>{t.data}</a>}
        </p>
      </div>
    </li>
  );
}

function hrefOf(where: NonNullable<ReturnType<typeof destination>>): string {
  if (where.to === "report") return local(where.url);
  if (where.to === "data") return link(["data", where.id, "revisions"]);
  return link([where.to === "job" ? "train" : "models", where.id]);
}
