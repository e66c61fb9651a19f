import { useState } from "preact/hooks";
import { address, answer, api } from "../../api";
import { Button } from "../../components/Button";
import { Code } from "../../components/Copy";
import { Confirm } from "../../components/Dialog";
import { ErrorBox, JobState, Loading, Notice, Progress } from "../../components/Feedback";
import { Icon } from "../../components/Icon";
import { Tabs } from "../../components/Tabs";
import { notify, notifyError } from "../../components/Toast";
import { useInterval, useLoad } from "../../load";
import { link, navigate, route } from "../../router";
import { may } from "../../session";
import { bytes, percent, time } from "../../text";
import { said } from "../../said";
import { Curves } from "./Curves";
import { starter, took, whereabouts } from "./JobList";
import { isFinal, LIVE_MS, nameOf, readJob, type Job } from "./jobs";
import { Log } from "./Log";
import { modePath, ordered, requested, rows } from "./settings";
import { text } from "./text";

const PARTS = ["curves", "log", "settings"] as const;
type Part = (typeof PARTS)[number];

export function JobPage({ id }: { id: string }) {
  const t = text();
  const read = useLoad((signal) => readJob(id, signal), [id], ["job"]);
  const job = read.data;
  useInterval(() => {
    if (job && !isFinal(job)) read.reload();
  }, LIVE_MS);
  const { query } = route.value;
  const asked = query.get("part") as Part | null;
  const part = asked && PARTS.includes(asked) ? asked : job && job.kind !== "training" ? "log" : "curves";
  return (
    <>
      <a class="back" href={link(["train"])}>
        <Icon name="back" size={16} />
        {t.back}
      </a>
      {job && <Head job={job} changed={read.set} />}
      {!(job && isFinal(job)) && <ErrorBox error={read.error} retry={read.reload} />}
      {!job && read.loading && <Loading />}
      {!job && !read.loading && <h1>{t.job}</h1>}
      {job && (
        <>
          <Tabs label={t.parts} current={part} tabs={PARTS.map((one) => ({ id: one, text: t.tabs[one], href: link(["train", id], { part: one, with: query.get("with") }) }))} />
          {part === "curves" && <Curves job={job} />}
          {part === "log" && <Log job={job} />}
          {part === "settings" && <Settings job={job} />}
        </>
      )}
    </>
  );
}

function Head({ job, changed }: { job: Job; changed: (job: Job) => void }) {
  const t = text();
  const modes: Record<string, { name: string }> = t.modes;
  const kinds: Record<string, string> = t.kinds;
  const kind = (job.kind === "training" && modes[modePath(job.mode)]?.name) || (kinds[job.kind] ?? job.kind);
  return (
    <>
      <div class="row between">
        <div class="stack tight head">
          <h1>
            {nameOf(job)} <span class="muted train-kind">{kind}</span>
          </h1>
          <div class="row">
            <JobState state={job.status} />
            {job.status === "queued" && job.queue_position !== null && <span class="muted">{t.place(job.queue_position)}</span>}
            {job.attempts > 1 && <span class="muted">{t.attempt(job.attempts)}</span>}
            <span class="muted">{isFinal(job) ? `${t.took}: ${took(job)}` : job.started_at ? t.elapsed(took(job)) : ""}</span>
          </div>
        </div>
        <Actions job={job} changed={changed} />
      </div>
      {!isFinal(job) && job.status !== "queued" && (
        <div class="stack tight">
          <div class="row">
            <span class="grow">
              <Progress value={job.progress / 100} label={t.progress} />
            </span>
            <strong>{percent(job.progress / 100, 0)}</strong>
          </div>
          <p class="muted" role="status">
            {whereabouts(job).join(" · ")}
          </p>
        </div>
      )}
      {job.error && (
        <Notice kind="error">
          <p>
            <strong>{t.failed}.</strong> {said(job.error)}
          </p>
        </Notice>
      )}
      {job.model_id && <Result job={job} model={job.model_id} />}
      <Notes job={job} />
    </>
  );
}

function Actions({ job, changed }: { job: Job; changed: (job: Job) => void }) {
  const t = text();
  const [asking, setAsking] = useState<"cancel" | "delete" | null>(null);
  const [busy, setBusy] = useState(false);
  const { job_id } = job;
  const training = job.kind === "training";
  const mode = modePath(job.mode);
  const act = async (work: () => Promise<void>) => {
    setBusy(true);
    try {
      await work();
    } catch (error) {
      notifyError(error);
    } finally {
      setBusy(false);
      setAsking(null);
    }
  };
  const params = { path: { job_id } };
  const cancel = () => act(async () => changed(await answer(api.POST("/jobs/{job_id}/cancel", { params }))));
  const remove = () =>
    act(async () => {
      await answer(api.DELETE("/jobs/{job_id}", { params }));
      notify(t.removed);
      navigate(["train"]);
    });
  return (
    <div class="row">
      {!isFinal(job) && (
        <Button icon="stop" kind="danger" reason={may("annotate") ? null : t.mayNot} busy={job.status === "stopping"} onClick={() => setAsking("cancel")}>
          {t.cancel}
        </Button>
      )}
      {isFinal(job) && training && job.status !== "completed" && (
        <a class="button plain normal" href={link(["train", "new", mode], { from: job_id, resume: 1 })}>
          {t.resume}
        </a>
      )}
      {isFinal(job) && training && (
        <a class="button plain normal" href={link(["train", "new", mode], { from: job_id })}>
          {t.again}
        </a>
      )}
      {isFinal(job) && may("admin") && <Button icon="trash" kind="quiet" label={t.remove} onClick={() => setAsking("delete")} />}
      {asking === "cancel" && (
        <Confirm title={t.cancelTitle} act={t.cancelJob} danger busy={busy} onConfirm={cancel} onClose={() => setAsking(null)}>
          <p>{t.cancelWhat}</p>
        </Confirm>
      )}
      {asking === "delete" && (
        <Confirm title={t.removeTitle} act={t.remove} danger busy={busy} onConfirm={remove} onClose={() => setAsking(null)}>
          <p>{t.removeWhat}</p>
        </Confirm>
      )}
    </div>
  );
}

function Result({ job, model }: { job: Job; model: string }) {
  const t = text();
  const path = encodeURIComponent(model);
  if (job.kind !== "training") return null;
  return (
    <section class="card row between" aria-label={t.result}>
      <div class="stack tight">
        <span class="muted">{t.result}</span>
        <strong class="mono">{model}</strong>
      </div>
      <div class="row">
        <a class="button primary normal" href={link(["models", model])}>
          {t.openModel}
        </a>
        <a class="button plain normal" href={address(`/metrics/${path}/report.html`)} target="_blank" rel="noopener">
          {t.report}
        </a>
        <a class="button plain normal" href={address(`/models/${path}/download?format=pt`)} download>
          <Icon name="download" />
          <span>{t.weights}</span>
        </a>
      </div>
    </section>
  );
}

function Notes({ job }: { job: Job }) {
  const resolved = (job.config.resolved ?? {}) as { notes?: string[] };
  const notes = resolved.notes ?? [];
  if (!notes.length) return null;
  return (
    <Notice>
      <ul class="plain">
        {notes.map((note) => (
          <li key={note}>{said(note)}</li>
        ))}
      </ul>
    </Notice>
  );
}

function Settings({ job }: { job: Job }) {
  const t = text();
  const config = job.config as Record<string, unknown>;
  const asked = requested(config);
  const resolved = (config.resolved ?? {}) as Record<string, unknown>;
  const body = JSON.stringify(asked).replaceAll("'", "'\\''");
  const curl = `curl -H 'Content-Type: application/json' \\\n  ${location.origin}${address(`/api/training/${modePath(job.mode)}`)} \\\n  -d '${body}'`;
  const facts: [string, string][] = [
    [t.by, starter(job)],
    [t.created, time(job.created_at)],
    [t.requestId, job.request_id ?? "–"],
    [t.files, bytes(job.size_bytes)],
  ];
  return (
    <div class="stack">
      <div class="columns">
        <Facts title={t.asked} rows={ordered(rows(asked))} />
        <Facts title={t.resolved} rows={ordered(rows(resolved))} />
        <Facts title={t.job} rows={facts} />
      </div>
      {job.kind === "training" && <Code label={t.repeat} text={curl} />}
    </div>
  );
}

function Facts({ title, rows: listed }: { title: string; rows: [string, string][] }) {
  if (!listed.length) return null;
  return (
    <section class="card stack tight">
      <h2>{title}</h2>
      <dl class="train-facts">
        {listed.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
