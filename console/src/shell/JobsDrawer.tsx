/** The header's chip of jobs, and the drawer that it opens on any screen. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Button } from "../components/Button";
import { Confirm } from "../components/Dialog";
import { ErrorBox, JobState, Loading, Progress } from "../components/Feedback";
import { Icon } from "../components/Icon";
import { notifyError } from "../components/Toast";
import { words } from "../components/text";
import { link, route, setQuery } from "../router";
import { may } from "../session";
import { ago, duration, number } from "../text";
import { said } from "../said";
import { active, cancelJob, cancelling, finished, jobsError, moreFinished, moreWait, PAGE, readFinished, startJobs, type Job } from "./jobs";
import "./jobs-drawer.css";
import { jobsText } from "./jobs-text";

/** How many jobs run or wait; opens the drawer. */
export function JobsChip() {
  useEffect(startJobs, []);
  const t = jobsText();
  const count = active.value.length;
  const shown = `${number(count)}${moreWait.value ? "+" : ""}`;
  const running = active.value.some((job) => job.status !== "queued");
  const isOpen = route.value.query.get("jobs") === "open";
  return (
    <>
      <button type="button" class="button quiet normal jobs-chip" aria-haspopup="dialog" aria-expanded={isOpen} aria-label={count ? t.chip(shown) : t.chipNone} title={count ? t.chip(shown) : t.chipNone} onClick={() => setQuery({ jobs: "open" }, false)}>
        {running ? <span class="spinner" /> : <Icon name="jobs" />}
        <span class="jobs-word">{t.title}</span>
        {count > 0 && <span class="count">{shown}</span>}
      </button>
      {isOpen && may("use") && <Drawer onClose={() => setQuery({ jobs: null })} />}
    </>
  );
}

function Drawer({ onClose }: { onClose: () => void }) {
  const t = jobsText();
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  const [asked, setAsked] = useState<Job | null>(null);
  const [shown, setShown] = useState(PAGE);
  useEffect(() => {
    const before = document.activeElement;
    const dialog = element.current!;
    if (!dialog.open) dialog.showModal();
    readFinished().catch(notifyError);
    return () => {
      dialog.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  const confirm = () => {
    const job = asked!;
    setAsked(null);
    cancelJob(job.job_id).catch(notifyError);
  };
  return (
    <dialog
      ref={element}
      class="drawer"
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => event.target === element.current && onClose()}
      onKeyDown={(event) => event.stopPropagation()}
    >
      <div class="drawer-head">
        <h2 id={id}>{t.title}</h2>
        <a class="small" href={link(["train"])}>
          {t.all}
        </a>
        <Button kind="quiet" icon="close" label={words().close} onClick={onClose} />
      </div>
      <div class="drawer-body stack">
        <ErrorBox error={jobsError.value} />
        <section class="stack tight">
          <h3>{t.active}</h3>
          {active.value.length ? (
            <ul class="plain jobs-list">
              {active.value.slice(0, shown).map((job) => (
                <ActiveRow key={job.job_id} job={job} ask={() => setAsked(job)} />
              ))}
            </ul>
          ) : (
            <p class="muted">
              {t.none} <a href={link(["train", "new"])}>{t.nextStep}</a>
            </p>
          )}
          {active.value.length > shown && <More act={async () => setShown(shown + PAGE)}>{t.moreWait}</More>}
        </section>
        <section class="stack tight">
          <h3>{t.finished}</h3>
          {!finished.value ? (
            <Loading />
          ) : finished.value.length ? (
            <ul class="plain jobs-list">
              {finished.value.map((job) => (
                <FinishedRow key={job.job_id} job={job} />
              ))}
            </ul>
          ) : (
            <p class="muted">{t.noneFinished}</p>
          )}
          {moreFinished.value && <More act={() => readFinished(true)}>{t.older}</More>}
        </section>
      </div>
      {asked && (
        <Confirm title={t.confirm} act={t.act} danger onConfirm={confirm} onClose={() => setAsked(null)}>
          <p>{t.confirmText(`${t.kinds[asked.kind] ?? asked.kind} ${nameOf(asked)}`)}</p>
        </Confirm>
      )}
    </dialog>
  );
}

function More({ act, children }: { act: () => Promise<void>; children: ComponentChildren }) {
  const [busy, setBusy] = useState(false);
  return (
    <div class="row">
      <Button
        size="small"
        busy={busy}
        onClick={() => {
          setBusy(true);
          act().catch(notifyError).finally(() => setBusy(false));
        }}
      >
        {children}
      </Button>
    </div>
  );
}

function nameOf(job: Job): string {
  return job.model_name ?? job.base_model ?? job.job_id.slice(0, 8);
}

function Title({ job }: { job: Job }) {
  const t = jobsText();
  return (
    <a class="jobs-name clip" href={link(["train", job.job_id])}>
      {t.kinds[job.kind] ?? job.kind} · {nameOf(job)}
    </a>
  );
}

function ActiveRow({ job, ask }: { job: Job; ask: () => void }) {
  const t = jobsText();
  const ends = cancelling.value.has(job.job_id) || job.status === "stopping";
  const waits = job.status === "queued" && !ends;
  const told = [
    waits ? "" : `${number(job.progress)} %`,
    waits && job.queue_position ? t.place(job.queue_position) : "",
    !waits && job.total_epochs ? t.epoch(job.current_epoch, job.total_epochs) : "",
    !waits && job.batches ? t.batch(job.batch ?? 0, job.batches) : "",
    !waits && !ends && job.eta_s !== null ? t.left(duration(job.eta_s)) : "",
    job.started_by ? t.by(job.started_by) : "",
  ].filter(Boolean);
  return (
    <li class="jobs-row">
      <div class="row between jobs-head">
        <Title job={job} />
        <JobState state={ends ? "stopping" : job.status} />
      </div>
      {!waits && <Progress value={job.progress / 100} label={`${nameOf(job)}: ${number(job.progress)} %`} />}
      <div class="row between jobs-head">
        <span class="muted small grow">{told.join(" · ")}</span>
        <Button size="small" reason={ends ? t.alreadyCancelling : may("annotate") ? null : t.mayNot} label={t.cancelOf(nameOf(job))} onClick={ask}>
          {t.cancel}
        </Button>
      </div>
    </li>
  );
}

function FinishedRow({ job }: { job: Job }) {
  return (
    <li class="jobs-row">
      <div class="row between jobs-head">
        <Title job={job} />
        <JobState state={job.status} />
      </div>
      {job.error && <p class="small jobs-error">{said(job.error)}</p>}
      <p class="muted small">
        {ago(job.finished_at)}
        {job.model_id && (
          <>
            {" · "}
            <a class="mono" href={link(["models", job.model_id])}>
              {job.model_id}
            </a>
          </>
        )}
      </p>
    </li>
  );
}
