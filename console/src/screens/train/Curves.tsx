import { useEffect, useState } from "preact/hooks";
import { answer, api } from "../../api";
import { Button } from "../../components/Button";
import { Chart, type Line } from "../../components/Chart";
import { Loading } from "../../components/Feedback";
import { Select } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { useLoad } from "../../load";
import { route, setQuery } from "../../router";
import { ago, number } from "../../text";
import { fieldName } from "../models/figures";
import { isFinal, nameOf, readHistory, useHistory, type Job } from "./jobs";
import { at, bestEpoch, column, firstCharts, isLoss, mainMetric, names, shortly, type Epoch } from "./metrics";
import { text } from "./text";

const MOST = 5; // runs beside this one

/** Curves of a training: losses and quality first, the rest below; other runs can be laid over. */
export function Curves({ job }: { job: Job }) {
  const t = text();
  const history = useHistory(job.job_id, !isFinal(job), job.attempts);
  if (job.kind !== "training") return <p class="muted">{t.noHistory}</p>;
  if (!history) return <Loading />;
  if (!history.length) return <p class="muted">{t.noCurves}</p>;
  const main = mainMetric(history);
  const best = main ? bestEpoch(history, main) : null;
  return (
    <div class="stack">
      <Latest history={history} best={best} />
      <Overlay job={job} history={history} main={main} />
      <AllCurves history={history} />
    </div>
  );
}

function Latest({ history, best }: { history: Epoch[]; best: number | null }) {
  const t = text();
  const last = history[history.length - 1]!;
  const { losses, quality } = firstCharts(history);
  return (
    <dl class="tiles" aria-label={t.latest}>
      {[...quality, ...losses].map((name) => (
        <div key={name} class="tile">
          <dt>{fieldName(name) ?? name}</dt>
          <dd>
            {last.metrics[name] === null || last.metrics[name] === undefined ? "–" : shortly(last.metrics[name])}
            {name === quality[0] && best !== null && <small>{t.best(best)}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}

function lines(history: readonly Epoch[], shown: readonly string[]): Line[] {
  return shown.map((name) => ({ label: fieldName(name) ?? name, values: column(history, name) }));
}

interface Run {
  id: string;
  name: string;
  history: Epoch[];
}

/** The two first charts; with other runs chosen, their loss and main metric beside this run's. */
function Overlay({ job, history, main }: { job: Job; history: Epoch[]; main: string | null }) {
  const t = text();
  const chosen = (route.value.query.get("with") ?? "").split(",").filter(Boolean).slice(0, MOST);
  const trainings = useLoad(async (signal) => (await answer(api.GET("/jobs", { params: { query: { kind: "training", limit: 200 } }, signal }))).jobs, [job.job_id]);
  const [others, setOthers] = useState<Run[]>([]);
  const known = trainings.data ?? [];
  const label = (id: string) => {
    const found = known.find((one) => one.job_id === id);
    return found ? `${nameOf(found)} ${id.slice(0, 4)}` : id.slice(0, 8);
  };
  useEffect(() => {
    const control = new AbortController();
    Promise.all(chosen.map(async (id) => ({ id, name: label(id), history: await readHistory(id, 0, control.signal) })))
      .then((found) => !control.signal.aborted && setOthers(found))
      .catch(() => setOthers([])); // a run that was deleted is taken out of the address by its cross
    return () => control.abort();
  }, [chosen.join(), known.length]);
  const name = nameOf(job);
  const runs = [{ id: job.job_id, name: `${name} ${job.job_id.slice(0, 4)}`, history }, ...others.filter(({ id }) => chosen.includes(id))];
  const free = known.filter((one) => one.job_id !== job.job_id && !chosen.includes(one.job_id) && one.current_epoch > 0);
  const { losses, quality } = firstCharts(history);
  const choose = (ids: string[]) => setQuery({ with: ids.join(",") });
  return (
    <>
      <div class="train-charts">
        {runs.length > 1 ? (
          [losses[0], main].map((metric) => metric && <Compared key={metric} metric={metric} runs={runs} />)
        ) : (
          <>
            <Card title={t.losses} label={t.lossChart(name)} history={history} shown={losses} />
            {quality.length > 0 && <Card title={t.quality} label={t.qualityChart(name)} history={history} shown={quality} share />}
          </>
        )}
      </div>
      {(free.length > 0 || chosen.length > 0) && (
        <div class="row train-overlay">
          {chosen.length < MOST && free.length > 0 && (
            <Select
              label={t.overlay}
              value=""
              onChange={(id) => id && choose([...chosen, id])}
              options={[["", t.overlayNone], ...free.map((one) => [one.job_id, `${nameOf(one)} ${one.job_id.slice(0, 4)} · ${ago(one.created_at)}`] as const)]}
            />
          )}
          {chosen.map((id) => (
            <span key={id} class="badge train-run">
              {label(id)}
              <Button kind="quiet" size="small" icon="close" label={t.removeRun(label(id))} onClick={() => choose(chosen.filter((one) => one !== id))} />
            </span>
          ))}
        </div>
      )}
    </>
  );
}

function Card({ title, label, history, shown, share = false }: { title: string; label: string; history: Epoch[]; shown: string[]; share?: boolean }) {
  return (
    <section class="card stack tight">
      <h2>{title}</h2>
      <Chart label={label} x={history.map(({ epoch }) => epoch)} lines={lines(history, shown)} height={220} format={shortly} zero={share} xLabel={text().xEpoch} />
    </section>
  );
}

function Compared({ metric, runs }: { metric: string; runs: Run[] }) {
  const t = text();
  const shown = fieldName(metric) ?? metric;
  const epochs = [...new Set(runs.flatMap(({ history }) => history.map(({ epoch }) => epoch)))].sort((a, b) => a - b);
  return (
    <section class="card stack tight">
      <h2>{shown}</h2>
      <Chart
        label={t.compareChart(shown)}
        x={epochs}
        lines={runs.map(({ name, history }, place) => ({ label: name, values: at(history, epochs, metric), dashed: place > 0 }))}
        height={220}
        format={shortly}
        zero={!isLoss(metric)}
        xLabel={t.xEpoch}
      />
    </section>
  );
}

/** Every other metric, one small chart each; the parts of the loss in one. */
function AllCurves({ history }: { history: Epoch[] }) {
  const t = text();
  const [open, setOpen] = useState(false);
  const first = firstCharts(history);
  const rest = names(history).filter((name) => ![...first.losses, ...first.quality].includes(name));
  const parts = rest.filter(isLoss);
  const others = rest.filter((name) => !isLoss(name));
  if (!rest.length) return null;
  return (
    <details class="schema-advanced" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <Icon name="next" size={16} />
        {t.allCurves} ({number(rest.length)})
      </summary>
      {open && (
        <div class="train-charts">
          {parts.length > 0 && <Card title={t.losses} label={t.oneChart(parts.join(", "))} history={history} shown={parts} />}
          {others.map((name) => (
            <Card key={name} title={fieldName(name) ?? name} label={t.oneChart(fieldName(name) ?? name)} history={history} shown={[name]} share />
          ))}
        </div>
      )}
    </details>
  );
}
