import { useState } from "preact/hooks";
import { answer, api } from "../../api";
import { Badge, Empty, ErrorBox, JobState, Loading, Progress } from "../../components/Feedback";
import { Button } from "../../components/Button";
import { Chart } from "../../components/Chart";
import { Icon } from "../../components/Icon";
import { Select } from "../../components/Field";
import { notifyError } from "../../components/Toast";
import { words } from "../../components/text";
import { useInterval, useLoad } from "../../load";
import { link, route, setQuery } from "../../router";
import { may } from "../../session";
import { ago, duration, percent } from "../../text";
import { fieldName } from "../models/figures";
import { isFinal, LIVE_MS, nameOf, useHistory, type Job } from "./jobs";
import { column, firstCharts, mainMetric, shortly } from "./metrics";
import { text } from "./text";

const PAGE = 50;
const CURVES = 4; // running jobs that are shown with a curve
const FINISHED = ["completed", "failed", "stopped"] as const;
const STATUSES = [...FINISHED, "queued", "running", "stopping"] as const;

/** The jobs: those that run, those that wait, and all in pages. */
export function JobList() {
  const t = text();
  const status = route.value.query.get("status") ?? "";
  const kind = route.value.query.get("kind") ?? "";
  const filtered = Boolean(status || kind);
  const read = async (signal: AbortSignal, before?: string): Promise<Job[]> => {
    const wanted = STATUSES.filter((one) => one === status);
    const query = { limit: PAGE, before, kind: kind || undefined, status: wanted.length ? wanted : [...FINISHED] };
    return (await answer(api.GET("/jobs", { params: { query }, signal }))).jobs;
  };
  const live = useLoad(
    async (signal) => (await answer(api.GET("/jobs", { params: { query: { status: ["queued", "running", "stopping"], limit: 200 } }, signal }))).jobs,
    [],
    ["job"],
  );
  const jobs = useLoad((signal) => read(signal), [status, kind], ["job"]);
  const [older, setOlder] = useState<{ key: string; jobs: Job[]; end: boolean }>({ key: "", jobs: [], end: false });
  const [reading, setReading] = useState(false);
  const key = `${status} ${kind}`;
  const more = older.key === key ? older.jobs : [];
  const first = jobs.data ?? [];
  const listed = [...first, ...more.filter((one) => !first.some((other) => other.job_id === one.job_id))];
  const ended = older.key === key ? older.end : first.length < PAGE;
  const active = live.data ?? [];
  const running = active.filter((job) => job.status !== "queued");
  const waiting = active.filter((job) => job.status === "queued").sort((a, b) => (a.queue_position ?? 0) - (b.queue_position ?? 0));
  useInterval(() => {
    if (active.length) live.reload();
  }, LIVE_MS);
  const showOlder = async () => {
    setReading(true);
    try {
      const found = await read(new AbortController().signal, listed[listed.length - 1]?.job_id);
      setOlder({ key, jobs: [...more, ...found], end: found.length < PAGE });
    } catch (error) {
      notifyError(error);
    } finally {
      setReading(false);
    }
  };
  return (
    <>
      <div class="row between">
        <h1>{t.title}</h1>
        <NewButton />
      </div>
      <ErrorBox error={jobs.error ?? live.error} retry={jobs.reload} />
      {running.length > 0 && (
        <section class="stack tight" aria-label={t.running}>
          <h2>{t.running}</h2>
          <div class="train-running">
            {running.map((job, at) => (
              <RunningCard key={job.job_id} job={job} curve={at < CURVES} />
            ))}
          </div>
        </section>
      )}
      {waiting.length > 0 && (
        <section class="stack tight" aria-label={t.queue}>
          <h2>{t.queue}</h2>
          <ol class="plain card train-queue">
            {waiting.map((job) => (
              <li key={job.job_id} class="row">
                <a href={link(["train", job.job_id])}>{nameOf(job)}</a>
                <KindBadge job={job} />
                <span class="muted">{job.queue_position ? t.place(job.queue_position) : words().states.queued}</span>
              </li>
            ))}
          </ol>
        </section>
      )}
      {jobs.data && live.data && !listed.length && !active.length && !filtered ? (
        <Empty icon="train" title={t.none}>
          <p class="muted">{t.noneHint}</p>
          <NewButton />
        </Empty>
      ) : (
        <section class="stack">
          <div class="row between train-list-head">
            <h2>{t.ended}</h2>
            <div class="filters">
              <Select label={t.status} value={status} onChange={(value) => setQuery({ status: value })} options={[["", t.finished], ...STATUSES.map((one) => [one, words().states[one]] as const)]} />
              <Select label={t.kind} value={kind} onChange={(value) => setQuery({ kind: value })} options={[["", t.all], ...Object.entries(t.kinds)]} />
            </div>
          </div>
          {!jobs.data && jobs.loading ? <Loading /> : listed.length ? <JobTable jobs={listed} /> : jobs.data && <p class="muted">{filtered ? t.noneMatch : t.noneYet}</p>}
          {!ended && listed.length > 0 && (
            <div class="row">
              <Button busy={reading} onClick={showOlder}>
                {t.older}
              </Button>
            </div>
          )}
        </section>
      )}
    </>
  );
}

function NewButton() {
  const t = text();
  if (!may("train"))
    return (
      <Button kind="primary" icon="plus" reason={t.mayNot}>
        {t.new}
      </Button>
    );
  return (
    <a class="button primary normal" href={link(["train", "new"])}>
      <Icon name="plus" />
      <span>{t.new}</span>
    </a>
  );
}

function kindName(kind: string): string {
  const kinds: Record<string, string> = text().kinds;
  return kinds[kind] ?? kind;
}

function KindBadge({ job }: { job: Job }) {
  const modes: Record<string, { name: string }> = text().modes;
  const mode = job.kind === "training" ? modes[(job.mode ?? "").replace("_", "-")]?.name : undefined;
  return <Badge>{mode ?? kindName(job.kind)}</Badge>;
}

/** Where a running job is: epoch, batch, what it still takes. */
export function whereabouts(job: Job): string[] {
  const t = text();
  return [
    job.total_epochs > 0 && job.current_epoch > 0 && t.epoch(job.current_epoch, job.total_epochs),
    job.batches && job.batch !== null && t.batch(job.batch, job.batches),
    job.status === "running" && left(job.eta_s),
  ].filter((part): part is string => Boolean(part));
}

function left(seconds: number | null): string {
  const t = text();
  if (seconds === null) return t.noEta;
  return seconds < 1 ? t.nearly : t.eta(duration(seconds));
}

function RunningCard({ job, curve }: { job: Job; curve: boolean }) {
  const t = text();
  return (
    <article class="card stack tight">
      <div class="row between">
        <h3 class="clip">
          <a href={link(["train", job.job_id])}>{nameOf(job)}</a>
        </h3>
        <JobState state={job.status} />
      </div>
      <div class="row">
        <KindBadge job={job} />
        <span class="grow">
          <Progress value={job.progress / 100} label={`${t.progress}: ${nameOf(job)}`} />
        </span>
        <span class="muted">{percent(job.progress / 100, 0)}</span>
      </div>
      <p class="muted small">{whereabouts(job).join(" · ")}</p>
      {curve && job.kind === "training" && <LiveCurve job={job} />}
    </article>
  );
}

function LiveCurve({ job }: { job: Job }) {
  const t = text();
  const history = useHistory(job.job_id, true, job.attempts);
  if (!history?.length) return <p class="muted small">{t.noCurves}</p>;
  const { losses } = firstCharts(history);
  const lines = losses.map((name) => ({ label: name, values: column(history, name) }));
  return <Chart label={t.lossChart(nameOf(job))} x={history.map(({ epoch }) => epoch)} lines={lines} height={160} format={shortly} zero={false} xLabel={t.xEpoch} />;
}

function JobTable({ jobs }: { jobs: Job[] }) {
  const t = text();
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t.ended}>
      <table class="train-table">
        <thead>
          <tr>
            <th>{t.job}</th>
            <th>{t.status}</th>
            <th>{t.kind}</th>
            <th>{t.quality}</th>
            <th class="train-wide">{t.by}</th>
            <th>{t.created}</th>
            <th class="number train-wide">{t.took}</th>
          </tr>
        </thead>
        <tbody>
          {jobs.map((job) => (
            <tr key={job.job_id}>
              <td>
                <a href={link(["train", job.job_id])}>{nameOf(job)}</a>
              </td>
              <td>
                <JobState state={job.status} />
              </td>
              <td>
                <KindBadge job={job} />
              </td>
              <td class="nowrap">{result(job)}</td>
              <td class="train-wide">{starter(job)}</td>
              <td class="nowrap">{ago(job.created_at)}</td>
              <td class="number nowrap train-wide">{took(job)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function result(job: Job): string {
  if (!isFinal(job)) return percent(job.progress / 100, 0);
  const metrics = job.metrics as Record<string, number | null>;
  const name = mainMetric([{ epoch: 1, seconds: null, metrics, at: "" }]);
  const value = name ? metrics[name] : null;
  return name && value !== null && value !== undefined ? `${fieldName(name) ?? name} ${shortly(value)}` : "–";
}

export function starter(job: Job): string {
  return job.started_by === "open" ? text().open : (job.started_by ?? "–");
}

export function took(job: Job): string {
  if (!job.started_at) return "–";
  const end = job.finished_at ? Date.parse(job.finished_at) : Date.now();
  return duration((end - Date.parse(job.started_at)) / 1000);
}
