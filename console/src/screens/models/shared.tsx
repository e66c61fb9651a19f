/** What the pages of models share. */
import { useEffect, useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Badge, ErrorBox, JobState, Progress, type StateName } from "../../components/Feedback";
import { useInterval, useLoad } from "../../load";
import { link } from "../../router";
import { number, percent } from "../../text";
import { fieldName, primaryOf, value, type Model } from "./figures";
import { metricName, text } from "./text";

export const readModels = (signal: AbortSignal) => answer(api.GET("/models", { signal }));
export const readShadow = (signal: AbortSignal) => answer(api.GET("/models/shadow", { signal }));

/** The state of a version, by words. */
export function Marks({ model, shadow }: { model: Model; shadow?: string | null }) {
  const t = text();
  return (
    <>
      {model.promoted && <Badge kind="good">{t.promoted}</Badge>}
      {model.active && <Badge kind="accent">{t.active}</Badge>}
      {shadow === model.id && <Badge kind="warn">{t.shadow}</Badge>}
    </>
  );
}

/** The primary metric of a version with its name. */
export function Primary({ model }: { model: Model }) {
  const metric = primaryOf(model.type);
  const found = value(model.metrics, metric);
  if (found === null) return <span class="muted">{text().notEvaluated}</span>;
  return (
    <span>
      <b class="models-figure">{percent(found)}</b> <span class="muted small">{metricName(metric, fieldName(metric))}</span>
    </span>
  );
}

/** A difference of shares, in points, with its sign. */
export function points(delta: number | null | undefined): string {
  if (delta === null || delta === undefined) return "–";
  const sign = delta > 0 ? "+" : delta < 0 ? "−" : "±";
  return `${sign}${number(Math.abs(delta) * 100, 1)}`;
}

export function Delta({ delta }: { delta: number | null | undefined }) {
  const kind = !delta ? "same" : delta > 0 ? "up" : "down";
  return <span class={`models-delta ${kind}`}>{points(delta)}</span>;
}

type Job = Schemas["JobView"];

/** Follows a job to its end. */
export function JobWatch({ id, onEnd }: { id: string; onEnd: (job: Job) => void }) {
  const job = useLoad((signal) => answer(api.GET("/jobs/{job_id}", { params: { path: { job_id: id } }, signal })), [id], ["job"]);
  const [ended, setEnded] = useState(false);
  useInterval(() => !ended && job.reload(), 1500);
  useEffect(() => {
    if (!ended && job.data?.finished_at) {
      setEnded(true);
      onEnd(job.data);
    }
  }, [job.data]);
  return (
    <div class="stack tight">
      <div class="row">
        <JobState state={(job.data?.status ?? "queued") as StateName} />
        <a class="small mono" href={link(["train", id])}>
          {id.slice(0, 8)}
        </a>
      </div>
      {!ended && <Progress value={job.data?.progress ? job.data.progress / 100 : null} label={text().deciding} />}
      <ErrorBox error={job.error} />
    </div>
  );
}
