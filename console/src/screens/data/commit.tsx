/** The dialog that commits accepted drafts: first what they would change, then one revision. */
import { useEffect, useState } from "preact/hooks";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorBox, Loading, Notice } from "../../components/Feedback";
import { Switch } from "../../components/Field";
import { link } from "../../router";
import { number, time } from "../../text";
import { commitDrafts, server, type CommitAnswer, type Conflict } from "../annotate/sync/index";
import { said } from "../../said";
import "./queue.css";
import { text } from "./queue-text";

const KINDS = ["added", "removed", "moved", "relabelled", "accepted"] as const;
const SHOWN = 50; // images whose changes are listed

export interface CommitProps {
  dataset: string;
  onClose: () => void;
  /** Called when a revision was made, or a draft was dropped. */
  onChange: () => void;
}

export default function Commit({ dataset, onClose, onChange }: CommitProps) {
  const t = text();
  const [preview, setPreview] = useState<CommitAnswer | null>(null);
  const [made, setMade] = useState<CommitAnswer | null>(null);
  const [error, setError] = useState<unknown>(undefined);
  const [busy, setBusy] = useState(false);
  const [mine, setMine] = useState<string[]>([]);
  const [confirmed, setConfirmed] = useState(false);

  async function look(): Promise<void> {
    setError(undefined);
    setPreview(null);
    try {
      setPreview(await commitDrafts(dataset, { dryRun: true }));
    } catch (found) {
      setError(found);
    }
  }
  useEffect(() => void look(), []);

  async function keepTheirs(conflict: Conflict): Promise<void> {
    setBusy(true);
    try {
      const draft = await server.draft(dataset, conflict.content);
      if (draft) await server.discard(dataset, conflict.content, draft.etag);
      onChange();
      await look();
    } catch (found) {
      setError(found);
    } finally {
      setBusy(false);
    }
  }

  async function commit(): Promise<void> {
    setBusy(true);
    setError(undefined);
    try {
      setMade(await commitDrafts(dataset, { dryRun: false, mine, confirm: confirmed }));
      onChange();
    } catch (found) {
      setError(found);
      await commitDrafts(dataset, { dryRun: true }).then(setPreview, () => undefined); // others may have been quicker
    } finally {
      setBusy(false);
    }
  }

  if (made) {
    return (
      <Dialog title={t.dialog} onClose={onClose} actions={<Button kind="primary" autofocus onClick={onClose}>{t.close}</Button>}>
        <div class="stack">
          <Notice kind="good">
            <p>{made.repeated ? t.repeated(made.revision) : t.done(made.revision)}</p>
          </Notice>
          <Changes answer={made} />
          <p>
            <a href={link(["data", dataset, "revisions"], { to: made.revision })}>{t.showDiff}</a>
          </p>
        </div>
      </Dialog>
    );
  }
  const undecided = preview?.conflicts.some((conflict) => !mine.includes(conflict.content));
  const reason = !preview ? t.counting : undecided ? t.undecided : preview.confirmation_required && !confirmed ? t.unconfirmed : null;
  return (
    <Dialog
      title={t.dialog}
      wide
      onClose={onClose}
      actions={
        <Button kind="primary" busy={busy} reason={reason} onClick={() => void commit()}>
          {t.act}
        </Button>
      }
    >
      <div class="stack">
        <ErrorBox error={error} retry={() => void look()} />
        {!preview && !error && <Loading />}
        {preview && <Changes answer={preview} />}
        {preview && preview.conflicts.length > 0 && (
          <section class="stack tight">
            <h3>{t.conflictTitle}</h3>
            <p class="muted">{t.conflictHint}</p>
            <ul class="plain queue-conflicts">
              {preview.conflicts.map((conflict) => (
                <li key={conflict.content} class="card stack tight">
                  <a href={link(["annotate", dataset, conflict.content])}>{conflict.image}</a>
                  <span class="muted">{t.theirs(conflict.theirs.author, time(conflict.theirs.at))}</span>
                  <div class="row">
                    <Button
                      size="small"
                      pressed={mine.includes(conflict.content)}
                      onClick={() => setMine((before) => (before.includes(conflict.content) ? before.filter((one) => one !== conflict.content) : [...before, conflict.content]))}
                    >
                      {t.useMine}
                    </Button>
                    <Button size="small" kind="danger" busy={busy} onClick={() => void keepTheirs(conflict)}>
                      {t.keepTheirs}
                    </Button>
                  </div>
                </li>
              ))}
            </ul>
          </section>
        )}
        {preview?.confirmation_required && (
          <Notice kind="warn">
            <p>{t.removes(number(preview.removes.objects), number(preview.removes.of))}</p>
            <Switch label={t.confirm} checked={confirmed} onChange={setConfirmed} />
          </Notice>
        )}
      </div>
    </Dialog>
  );
}

function Changes({ answer }: { answer: CommitAnswer }) {
  const t = text();
  const { changes } = answer;
  const rows = changes.changed.slice(0, SHOWN);
  return (
    <div class="stack">
      <p class="queue-total">
        <strong>{changes.images === 1 ? t.oneImage : t.images(number(changes.images))}</strong>
        <span class="row">
          {KINDS.filter((kind) => changes[kind] > 0).map((kind) => (
            <span key={kind} class={`queue-kind ${kind}`}>
              {t.kinds[kind]} {number(changes[kind])}
            </span>
          ))}
        </span>
      </p>
      {answer.new_classes.length > 0 && <Notice kind="warn">{t.newClasses(answer.new_classes.join(", "))}</Notice>}
      {answer.notes.map((note) => (
        <Notice key={note}>{said(note)}</Notice>
      ))}
      <div class="table queue-changes" tabIndex={0} role="group" aria-label={t.dialog}>
        <table>
          <thead>
            <tr>
              <th>{t.image}</th>
              {KINDS.map((kind) => (
                <th key={kind} class="number">
                  {t.kinds[kind]}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.content}>
                <th scope="row" class="queue-name">
                  {row.image} {row.empty && <span class="muted small">{t.nothingHere}</span>}
                </th>
                {KINDS.map((kind) => (
                  <td key={kind} class={row[kind] ? "number" : "number muted"}>
                    {number(row[kind])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {changes.images > rows.length && <p class="muted">{t.firstOnly(number(rows.length))}</p>}
    </div>
  );
}
