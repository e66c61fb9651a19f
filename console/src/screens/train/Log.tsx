import { useEffect, useRef, useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { ErrorBox, Loading } from "../../components/Feedback";
import { Switch } from "../../components/Field";
import { notifyError } from "../../components/Toast";
import { useInterval, useLoad } from "../../load";
import { isFinal, LIVE_MS, type Job } from "./jobs";
import { text } from "./text";

const TAIL = 1000; // lines that are shown

/** The end of a job's log, read again while the job runs: a stream of its own would hold a connection. */
export function Log({ job }: { job: Job }) {
  const t = text();
  const [follow, setFollow] = useState(true);
  const place = useRef<HTMLPreElement>(null);
  const final = isFinal(job);
  const read = useLoad((signal) => lines(job.job_id, TAIL, signal), [job.job_id, final]);
  useInterval(() => {
    if (!final && follow) read.reload();
  }, LIVE_MS);
  const shown = read.data ?? [];
  useEffect(() => {
    if (follow && place.current) place.current.scrollTop = place.current.scrollHeight;
  }, [shown.length, shown[shown.length - 1], follow]);
  const download = async () => {
    try {
      const all = await lines(job.job_id);
      const url = URL.createObjectURL(new Blob([all.join("\n"), "\n"], { type: "text/plain" }));
      const anchor = document.createElement("a");
      anchor.href = url;
      anchor.download = `${job.job_id}.log`;
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch (error) {
      notifyError(error);
    }
  };
  return (
    <section class="stack tight" aria-label={t.logLabel}>
      <div class="row between">
        {final ? <span class="muted">{shown.length >= TAIL ? t.logTail(TAIL) : ""}</span> : <Switch label={t.follow} checked={follow} onChange={setFollow} />}
        <Button icon="download" size="small" onClick={download}>
          {t.download}
        </Button>
      </div>
      <ErrorBox error={read.error} retry={read.reload} />
      {!read.data && read.loading ? (
        <Loading />
      ) : (
        <pre ref={place} class="train-log" tabIndex={0} aria-label={t.logLabel}>
          {shown.length ? shown.join("\n") : t.logEmpty}
        </pre>
      )}
    </section>
  );
}

async function lines(id: string, count?: number, signal?: AbortSignal): Promise<string[]> {
  const params = { path: { job_id: id }, query: { lines: count } };
  const found = (await answer(api.GET("/jobs/{job_id}/logs", { params, signal }))) as Schemas["JobLog"]; // or a stream, which is not asked for
  return found.logs;
}
