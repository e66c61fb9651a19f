/** Uploads with their progress and report: a dataset, a new one to annotate, or images for one. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Schemas } from "../../api";
import { Button } from "../../components/Button";
import { ErrorBox, Notice, Progress } from "../../components/Feedback";
import { Field, Select } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { notifyError } from "../../components/Toast";
import { link, route } from "../../router";
import { may, session } from "../../session";
import { bytes, number } from "../../text";
import { said } from "../../said";
import type { Dataset } from "./dataset";
import { chosen, dropped, type Dropped } from "./dropped";
import { Missing, Problems } from "./problems";
import { text } from "./text";
import { busy, cancel, start, upload, type Upload } from "./upload-state";

export type Purpose = "upload" | "annotate" | "add";

export interface UploaderProps {
  purpose: Purpose;
  /** The dataset that images are added to. */
  dataset?: Dataset;
}

/** The screen of an upload. */
export function Uploader({ purpose, dataset }: UploaderProps) {
  const t = text().uploading;
  const now = upload.value;
  const [name, setName] = useState("");
  const [task, setTask] = useState(purpose === "annotate" ? "detect" : "");
  const [classes, setClasses] = useState("");
  const [left, setLeft] = useState(0);
  const names = [...new Set(classes.split("\n").map((line) => line.trim()).filter(Boolean))];
  const reason = !may("annotate") ? text().needs("annotate") : purpose === "annotate" && !names.length ? t.needClasses : null;
  useEffect(() => {
    if (!busy(upload.value)) upload.value = null; // the report of an upload before
  }, [purpose, dataset?.id]);
  const take = (found: Dropped) => {
    setLeft(found.left);
    if (!found.files.length) {
      notifyError(new DOMException(t.nothing));
      return;
    }
    const limit = session.value?.limits?.upload_bytes ?? null;
    const options = { name, task, classes: purpose === "annotate" ? names : [], dataset: dataset?.id ?? "" };
    void start(found.files, options, limit);
  };
  const title = purpose === "add" && dataset ? t.addTitle(dataset.name) : purpose === "annotate" ? t.newTitle : t.title;
  return (
    <>
      <p>
        <a class="back" href={dataset ? link(["data", dataset.id, "images"]) : link(["data"])}>
          <Icon name="back" size={16} />
          {dataset ? dataset.name : text().back}
        </a>
      </p>
      <h1>{title}</h1>
      {now ? (
        <Report now={now} left={left} purpose={purpose} />
      ) : (
        <div class="stack">
          {purpose === "annotate" && (
            <div class="columns">
              <div class="stack">
                <Name name={name} setName={setName} />
                <Task task={task} setTask={setTask} />
              </div>
              <Field label={t.classes} hint={t.classesHint}>
                {(control) => <textarea {...control} rows={6} value={classes} onInput={(event) => setClasses(event.currentTarget.value)} />}
              </Field>
            </div>
          )}
          <DropZone onFiles={take} reason={reason} images={purpose !== "upload"} />
          {purpose === "upload" && (
            <>
              <p class="muted">{t.formats}</p>
              <details class="schema-advanced">
                <summary>
                  <Icon name="next" size={16} />
                  {t.options}
                </summary>
                <div class="columns data-options">
                  <Name name={name} setName={setName} />
                  <Task task={task} setTask={setTask} auto />
                </div>
              </details>
            </>
          )}
        </div>
      )}
    </>
  );
}

function Name({ name, setName }: { name: string; setName: (name: string) => void }) {
  const t = text().uploading;
  return (
    <Field label={t.name} hint={t.nameHint}>
      {(control) => <input {...control} maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
    </Field>
  );
}

function Task({ task, setTask, auto }: { task: string; setTask: (task: string) => void; auto?: boolean }) {
  const t = text();
  const tasks = (["detect", "segment", "pose", "classify"] as const).map((one) => [one, t.tasks[one]] as const);
  return <Select label={t.uploading.task} value={task} onChange={setTask} options={auto ? [["", t.uploading.auto], ...tasks] : tasks} />;
}

/** Takes files by drop or by choice. */
export function DropZone({ onFiles, reason, images }: { onFiles: (found: Dropped) => void; reason?: string | null; images?: boolean }) {
  const t = text().uploading;
  const [over, setOver] = useState(false);
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  useEffect(() => {
    folder.current!.webkitdirectory = true;
  }, []);
  const take = (input: HTMLInputElement) => {
    const found = chosen(input);
    input.value = "";
    if (found.files.length || found.left) onFiles(found);
  };
  return (
    <div
      class={over ? "data-drop over" : "data-drop"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(!reason);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        if (!reason && event.dataTransfer) dropped(event.dataTransfer).then(onFiles, notifyError);
      }}
    >
      <Icon name="upload" size={32} />
      <p class="empty-title">{images ? t.dropImages : t.drop}</p>
      <div class="row">
        <Button kind="primary" reason={reason} onClick={() => files.current!.click()}>
          {t.chooseFiles}
        </Button>
        <Button reason={reason} onClick={() => folder.current!.click()}>
          {t.chooseFolder}
        </Button>
      </div>
      {reason && <p class="hint">{reason}</p>}
      <input ref={files} type="file" multiple hidden aria-label={t.chooseFiles} onChange={(event) => take(event.currentTarget)} />
      <input ref={folder} type="file" hidden aria-label={t.chooseFolder} onChange={(event) => take(event.currentTarget)} />
    </div>
  );
}

/** What an upload is doing, or what became of it. */
function Report({ now, left, purpose }: { now: Upload; left: number; purpose: Purpose }) {
  const t = text().uploading;
  if (now.stage === "done") return <Stored dataset={now.dataset} left={left} purpose={purpose} />;
  if (now.stage === "added") return <Added result={now.result} />;
  const again = (
    <div class="row">
      <Button onClick={() => (upload.value = null)}>{t.another}</Button>
    </div>
  );
  if (now.stage === "failed") {
    return (
      <div class="stack">
        <ErrorBox error={now.error} />
        {again}
      </div>
    );
  }
  if (now.stage === "refused" || now.stage === "cancelled") {
    const why = now.stage === "cancelled" ? t.cancelled : now.why === "large" ? t.tooLarge(bytes(now.limit)) : t.tooMany(number(now.limit));
    return (
      <div class="stack">
        <Notice kind={now.stage === "cancelled" ? "info" : "error"}>{why}</Notice>
        {again}
      </div>
    );
  }
  const { what, share } = progressOf(now);
  return (
    <div class="card stack">
      <p role="status">{what}</p>
      <Progress value={share} label={what} />
      <div class="row end">
        <Button icon="close" onClick={() => cancel().catch(notifyError)}>
          {t.cancel}
        </Button>
      </div>
    </div>
  );
}

/** The words and the share of an upload that is under way. */
export function progressOf(now: Upload): { what: string; share: number | null } {
  const t = text().uploading;
  if (now.stage === "packing") return { what: t.packing, share: now.share };
  if (now.stage === "sending") return { what: t.sending(bytes(now.share * now.size), bytes(now.size)), share: now.share };
  if (now.stage !== "checking") return { what: "", share: null };
  const metrics = (now.job?.metrics ?? {}) as Record<string, number | null>;
  if (!metrics.images_total) return { what: t.waiting, share: null };
  return { what: t.checking(number(metrics.images), number(metrics.images_total)), share: (now.job?.progress ?? 0) / 100 };
}

function Stored({ dataset, left, purpose }: { dataset: Dataset; left: number; purpose: Purpose }) {
  const t = text();
  const images = (dataset.accounting.images ?? {}) as Record<string, number>;
  const kinds = Object.keys(t.overview.accounting) as (keyof typeof t.overview.accounting)[];
  const toAnnotate = dataset.source_format === "images";
  return (
    <div class="stack">
      <Notice kind={dataset.usable || toAnnotate ? "good" : "warn"}>
        <strong>{t.uploading.done(dataset.name)}</strong>
        {!toAnnotate && <p>{dataset.usable ? t.usable : <Missing id={dataset.id} />}</p>}
      </Notice>
      <div class="row">
        <a class="button primary normal" href={toAnnotate ? link(["annotate", dataset.id]) : link(["data", dataset.id])}>
          {toAnnotate ? t.uploading.annotateNow : t.uploading.openDataset}
        </a>
        {toAnnotate && (
          <a class="button normal" href={link(["data", dataset.id])}>
            {t.uploading.openDataset}
          </a>
        )}
        <Button kind="quiet" onClick={() => (upload.value = null)}>
          {t.uploading.another}
        </Button>
      </div>
      <dl class="tiles">
        {kinds
          .filter((kind) => images[kind])
          .map((kind) => (
            <div key={kind} class="tile">
              <dt>{t.overview.accounting[kind]}</dt>
              <dd>{number(images[kind])}</dd>
            </div>
          ))}
      </dl>
      {left > 0 && <p class="muted">{t.uploading.left(number(left))}</p>}
      <section class="stack tight">
        <h2>{t.overview.problems}</h2>
        <Problems problems={purpose === "annotate" || toAnnotate ? dataset.problems.filter((one) => one.kind !== "unlabelled") : dataset.problems} />
      </section>
      {dataset.notes.length > 0 && (
        <section class="stack tight">
          <h2>{t.overview.notes}</h2>
          {dataset.notes.map((note) => (
            <p key={note}>{said(note)}</p>
          ))}
        </section>
      )}
    </div>
  );
}

function Added({ result }: { result: Schemas["NewImages"] }) {
  const t = text().uploading;
  const { taken = 0, duplicate = 0, refused = 0 } = result.counts;
  const shown = result.images.filter((row) => row.outcome !== "taken").slice(0, 500);
  return (
    <div class="stack">
      <Notice kind={refused ? "warn" : "good"}>{t.counts(number(taken), number(duplicate), number(refused))}</Notice>
      <div class="row">
        <a class="button primary normal" href={link(["data", result.dataset_id, "images"], { state: "unlabelled" })}>
          {t.openDataset}
        </a>
        <Button kind="quiet" onClick={() => (upload.value = null)}>
          {t.another}
        </Button>
      </div>
      {shown.length > 0 && (
        <div class="table" tabIndex={0} role="group" aria-label={t.result}>
          <table>
            <thead>
              <tr>
                <th>{t.file}</th>
                <th>{t.result}</th>
                <th>{t.reason}</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((row) => (
                <tr key={row.name}>
                  <td class="data-name">{row.name}</td>
                  <td class="nowrap">{t.outcome[row.outcome]}</td>
                  <td>{said(row.reason)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}

/** The upload that goes on, on other pages of this screen. */
export function UnderWay() {
  const now = upload.value;
  if (!busy(now) || ["upload", "new"].includes(route.value.path[1] ?? "") || route.value.path[2] === "add") return null;
  const { what, share } = progressOf(now!);
  return (
    <a class="card stack tight data-under-way" href={link(["data", "upload"])}>
      <span>{what}</span>
      <Progress value={share} label={what} />
    </a>
  );
}
