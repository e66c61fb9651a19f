import { useState } from "preact/hooks";
import { address, answer, api, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Field, Select, Switch } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { notify, notifyError } from "../../components/Toast";
import { useLoad } from "../../load";
import { may, session } from "../../session";
import { bytes, number, time } from "../../text";
import { said } from "../../said";
import type { Model } from "./figures";
import { JobWatch } from "./shared";
import { text } from "./text";

type Exported = Schemas["Exported"];
type Format = Schemas["Export"]["format"];

/** Which options a format has. */
const OPTIONS: Record<Format, readonly ("precision" | "imgsz" | "dynamic" | "max_batch")[]> = {
  onnx: ["precision", "imgsz", "dynamic", "max_batch"],
  openvino: ["precision", "imgsz", "dynamic", "max_batch"],
  torchscript: ["imgsz", "dynamic"],
  pt: ["precision"],
  archive: [],
  engine: ["precision", "imgsz", "max_batch"],
};

/** The files that were made of a version, and how to make one. */
export function Exports({ model }: { model: Model }) {
  const t = text();
  const exports = useLoad((signal) => answer(api.GET("/models/{model_id}/exports", { params: { path: { model_id: model.id } }, signal })), [model.id], ["job"]);
  const [making, setMaking] = useState(false);
  const rows = exports.data?.exports ?? [];
  const remove = async (one: Exported) => {
    try {
      await answer(api.DELETE("/models/{model_id}/exports/{export_id}", { params: { path: { model_id: model.id, export_id: one.id } } }));
      exports.reload();
    } catch (error) {
      notifyError(error);
    }
  };
  const start = (
    <Button kind="primary" icon="download" reason={!may("train") && t.trainReason} onClick={() => setMaking(true)}>
      {t.exportIt}
    </Button>
  );
  return (
    <div class="stack">
      <ErrorBox error={exports.error} retry={exports.reload} />
      {!exports.data && exports.loading && <Loading />}
      {exports.data && !rows.length && (
        <Empty icon="download" title={t.noExports}>
          <p class="muted">{t.noExportsHint}</p>
          {start}
        </Empty>
      )}
      {rows.length > 0 && (
        <>
          <div class="row end">{start}</div>
          <div class="table" tabIndex={0} role="region" aria-label={t.exports}>
            <table>
              <thead>
                <tr>
                  <th>{t.file}</th>
                  <th class="number">{t.size}</th>
                  <th>{t.error}</th>
                  <th>{t.created}</th>
                  <th>
                    <span class="unseen">{t.actions}</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {rows.map((one) => (
                  <tr key={one.id}>
                    <td class="mono">{one.file}</td>
                    <td class="number nowrap">{bytes(one.size_bytes)}</td>
                    <td class="nowrap">{difference(one)}</td>
                    <td class="nowrap">{time(one.created_at)}</td>
                    <td>
                      <div class="models-row-actions">
                        <Download id={model.id} one={one} />
                        <Button size="small" kind="danger" icon="trash" label={t.deleteExport(one.file)} reason={!may("train") && t.trainReason} onClick={() => remove(one)} />
                      </div>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      {making && <Make model={model} onClose={() => setMaking(false)} onDone={exports.reload} />}
    </div>
  );
}

function difference({ parity }: Exported): string {
  const t = text();
  if (!parity) return t.itself;
  const score = parity.max_score_error.toPrecision(2);
  return parity.max_box_error_px === null || parity.max_box_error_px === undefined ? t.scoreError(score) : t.boxError(number(parity.max_box_error_px, 3), score);
}

/** Each option that the file was made with selects it. */
function Download({ id, one }: { id: string; one: Exported }) {
  const t = text();
  const options = OPTIONS[one.format];
  const query = new URLSearchParams({ format: one.format });
  for (const name of options) query.set(name, String(one[name]));
  if (one.dynamic) query.delete("max_batch"); // a dynamic file takes any number
  if (!may("train")) return null;
  return (
    <a class="button small" href={address(`/models/${encodeURIComponent(id)}/download?${query}`)} download={one.file} aria-label={t.downloadName(one.file)}>
      <Icon name="download" size={16} />
      {t.download}
    </a>
  );
}

function Make({ model, onClose, onDone }: { model: Model; onClose: () => void; onDone: () => void }) {
  const t = text();
  const offered = (session.value?.parts?.exports ?? ["onnx", "pt", "archive"]) as Format[];
  const [format, setFormat] = useState<Format>(offered[0] ?? "onnx");
  const [precision, setPrecision] = useState<"fp32" | "fp16">("fp32");
  const [imgsz, setImgsz] = useState("");
  const [dynamic, setDynamic] = useState(false);
  const [batch, setBatch] = useState("1");
  const [wrong, setWrong] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [job, setJob] = useState<string | null>(null);
  const has = (name: "precision" | "imgsz" | "dynamic" | "max_batch") => OPTIONS[format].includes(name);
  const done = (file: string) => {
    notify(t.exported(file));
    onDone();
    onClose();
  };
  const start = async () => {
    const side = imgsz.trim() ? Number(imgsz) : null;
    const bad = side !== null && (!Number.isInteger(side) || side < 32 || side > 4096);
    setWrong(bad ? t.imgszWrong : null);
    if (bad) return;
    setBusy(true);
    setError(undefined);
    const body: Schemas["Export"] = { format };
    if (has("precision")) body.precision = precision;
    if (has("imgsz") && side !== null) body.imgsz = side;
    if (has("dynamic") && dynamic) body.dynamic = true;
    if (has("max_batch") && !dynamic && Number(batch) > 1) body.max_batch = Number(batch);
    try {
      const found = await answer(api.POST("/models/{model_id}/export", { params: { path: { model_id: model.id } }, body }));
      if (found.exported) done(found.exported.file);
      else setJob(found.job_id);
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  const ended = (ran: Schemas["JobView"]) => {
    if (ran.status === "completed") done(t.formats[format]);
    else setError(new Error(t.jobFailed(said(ran.error ?? ran.status))));
  };
  return (
    <Dialog
      title={t.exportTitle(model.id)}
      onClose={onClose}
      actions={
        job ? (
          <Button onClick={onClose}>{t.close}</Button>
        ) : (
          <Button kind="primary" busy={busy} onClick={start}>
            {t.exportIt}
          </Button>
        )
      }
    >
      <div class="stack">
        {job ? (
          <>
            <p>{t.exporting}</p>
            <JobWatch id={job} onEnd={ended} />
          </>
        ) : (
          <>
            <Select label={t.format} value={format} options={offered.map((one) => [one, t.formats[one]] as const)} onChange={(one) => setFormat(one as Format)} />
            {has("precision") && <Select label={t.precision} value={precision} options={[["fp32", t.precisions.fp32], ["fp16", t.precisions.fp16]]} onChange={(one) => setPrecision(one as "fp32" | "fp16")} />}
            {has("imgsz") && (
              <Field label={t.imgsz} hint={t.imgszHint} error={wrong}>
                {(control) => <input {...control} type="text" inputMode="numeric" value={imgsz} onInput={(event) => setImgsz(event.currentTarget.value)} />}
              </Field>
            )}
            {has("dynamic") && <Switch label={t.dynamic} checked={dynamic} onChange={setDynamic} />}
            {has("max_batch") && !dynamic && (
              <Field label={t.maxBatch}>{(control) => <input {...control} type="number" min={1} max={64} value={batch} onInput={(event) => setBatch(event.currentTarget.value)} />}</Field>
            )}
          </>
        )}
        <ErrorBox error={error} />
      </div>
    </Dialog>
  );
}
