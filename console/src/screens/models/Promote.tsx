import { useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorBox, Loading, Notice } from "../../components/Feedback";
import { Switch } from "../../components/Field";
import { notify } from "../../components/Toast";
import { useLoad } from "../../load";
import { percent } from "../../text";
import { said } from "../../said";
import { DatasetChoice, useDatasets } from "./Evaluate";
import { fieldName, type Model } from "./figures";
import { Delta, JobWatch } from "./shared";
import { metricName, text } from "./text";

type Answered = Schemas["PromotionAnswer"];

/** What the gate decided, or would. */
interface Verdict {
  promoted: boolean;
  reasons: string[];
}

function promote(id: string, body: Schemas["Promote"]) {
  return answer(api.POST("/models/{model_id}/promote", { params: { path: { model_id: id } }, body }));
}

/** Asks the gate what it would do, shows the verdict, and promotes on it. */
export function Promote({ model, onClose, onDone }: { model: Model; onClose: () => void; onDone: () => void }) {
  const t = text();
  const [dataset, setDataset] = useState("");
  const datasets = useDatasets(model.type);
  const gate = dataset ? { dataset } : {};
  const preview = useLoad(async () => (await promote(model.id, { gate, dry_run: true })) as Schemas["PromotionPreviewed"], [model.id, dataset]);
  const [force, setForce] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [job, setJob] = useState<string | null>(null);
  const [verdict, setVerdict] = useState<Verdict | null>(null);
  const seen = preview.data;
  const refuses = seen?.would_promote === false;
  const gateless = Boolean(preview.error);

  const confirm = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const found = (await promote(model.id, { gate, force: gateless || (force && refuses) })) as Answered | Schemas["Evaluating"];
      if (found.status === "evaluating") setJob(found.job_id);
      else settle({ promoted: found.promoted, reasons: found.reasons });
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const settle = (decided: Verdict) => {
    onDone();
    if (decided.promoted) {
      notify(t.promotedNow(model.id));
      onClose();
    } else setVerdict(decided);
  };
  const ended = async (ran: Schemas["JobView"]) => {
    if (ran.status !== "completed") {
      setError(new Error(t.jobFailed(said(ran.error ?? ran.status))));
      return;
    }
    try {
      const { decisions } = await answer(api.GET("/models/{name}/decisions", { params: { path: { name: model.name } } }));
      const decision = decisions.find((one) => one.job_id === ran.job_id);
      settle({ promoted: decision?.action === "promoted", reasons: decision?.reasons ?? [] });
    } catch (failed) {
      setError(failed);
    }
  };

  const label = seen?.would_promote === null ? t.evaluateAndDecide : gateless ? t.withoutGate : t.promote;
  return (
    <Dialog
      title={t.promoteTitle(model.id)}
      onClose={onClose}
      actions={
        verdict || job ? (
          <Button onClick={onClose}>{t.close}</Button>
        ) : (
          (seen || gateless) && (
            <Button kind={force || gateless ? "danger" : "primary"} busy={busy} reason={refuses && !force && t.refusedReason} onClick={confirm}>
              {label}
            </Button>
          )
        )
      }
    >
      <div class="stack">
        {!seen && preview.loading && (
          <div>
            <Loading />
            <p class="muted">{t.checking}</p>
          </div>
        )}
        <ErrorBox error={preview.error} retry={preview.reload} />
        {verdict ? (
          <Notice kind="error">
            <Reasons title={t.verdictBad} reasons={verdict.reasons} />
          </Notice>
        ) : job ? (
          <>
            <p>{t.deciding}</p>
            <JobWatch id={job} onEnd={ended} />
          </>
        ) : (
          seen && (
            <>
              <Notice kind={seen.would_promote === null ? "info" : refuses ? "error" : "good"}>
                <Reasons title={seen.would_promote === null ? t.verdictOpen : refuses ? t.verdictBad : t.verdictGood} reasons={[seen.message, ...seen.reasons]} />
              </Notice>
              {seen.would_promote === null && <p class="muted">{t.verdictOpenHint}</p>}
              {seen.regressed.length > 0 && <Regressed rows={seen.regressed} />}
              {refuses && <Switch label={t.force} checked={force} onChange={setForce} />}
            </>
          )
        )}
        {!verdict && !job && (gateless || seen?.would_promote === null || dataset) && datasets.list.length > 0 && (
          <DatasetChoice label={t.judgeOn} none={t.judgeDefault} value={dataset} list={datasets.list} onChange={setDataset} />
        )}
        <ErrorBox error={error} />
      </div>
    </Dialog>
  );
}

function Reasons({ title, reasons }: { title: string; reasons: string[] }) {
  return (
    <>
      <p>
        <b>{title}</b>
      </p>
      {reasons.map((one) => (
        <p key={one}>{said(one)}</p>
      ))}
    </>
  );
}

function Regressed({ rows }: { rows: Schemas["RegressedClass"][] }) {
  const t = text();
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t.regressed}>
      <table>
        <thead>
          <tr>
            <th>{t.regressed}</th>
            <th>{t.metric}</th>
            <th class="number">{t.was}</th>
            <th class="number">{t.now}</th>
            <th class="number">{t.delta}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.class}>
              <td>{row.class}</td>
              <td class="nowrap">{metricName(row.metric, fieldName(row.metric))}</td>
              <td class="number">{percent(row.old)}</td>
              <td class="number">{percent(row.new)}</td>
              <td class="number">
                <Delta delta={row.new - row.old} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
