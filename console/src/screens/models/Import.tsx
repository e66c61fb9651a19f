import { useRef, useState } from "preact/hooks";
import { sendForm } from "../../api";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorBox, Progress } from "../../components/Feedback";
import { Field, Switch } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { notify } from "../../components/Toast";
import { navigate } from "../../router";
import { session } from "../../session";
import { bytes, percent } from "../../text";
import type { Model } from "./figures";
import { text } from "./text";

/** Sends a file of weights; the server checks and converts it. */
export function Import({ onClose }: { onClose: () => void }) {
  const t = text();
  const [file, setFile] = useState<File | null>(null);
  const [name, setName] = useState("");
  const [description, setDescription] = useState("");
  const [promote, setPromote] = useState(false);
  const [sent, setSent] = useState<number | null>(null);
  const [error, setError] = useState<unknown>();
  const [wrong, setWrong] = useState<string | null>(null);
  const control = useRef<AbortController | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const busy = sent !== null;

  const start = async () => {
    const most = session.value?.limits?.model_bytes;
    const reason = !file ? t.fileMissing : most && file.size > most ? t.fileTooLarge(bytes(file.size), bytes(most)) : null;
    setWrong(reason);
    if (!file || reason) return;
    const form = new FormData();
    form.append("file", file);
    if (name.trim()) form.append("name", name.trim());
    if (description.trim()) form.append("description", description.trim());
    if (promote) form.append("promote", "true");
    control.current = new AbortController();
    setError(undefined);
    setSent(0);
    try {
      const model = await sendForm<Model>("/models/import", form, { onProgress: setSent, signal: control.current.signal });
      notify(t.imported(model.id));
      onClose();
      navigate(["models", model.id]);
    } catch (failed) {
      if (!(failed instanceof DOMException)) setError(failed);
    } finally {
      setSent(null);
    }
  };

  return (
    <Dialog
      title={t.importTitle}
      onClose={() => {
        control.current?.abort();
        onClose();
      }}
      actions={
        <Button kind="primary" busy={busy} onClick={start}>
          {t.importStart}
        </Button>
      }
    >
      <div class="stack">
        <p class="muted">{t.importHint}</p>
        <Field label={t.chooseFile} error={wrong}>
          {(field) => (
            <div class="row">
              <input ref={input} class="models-file" type="file" accept=".pt,.pth,.zip" tabIndex={-1} aria-hidden="true" onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
              <button {...field} type="button" class="button plain normal" aria-label={`${t.chooseFile}: ${file ? file.name : t.pickFile}`} onClick={() => input.current?.click()}>
                <Icon name="upload" />
                {file ? file.name : t.pickFile}
              </button>
              {file && <span class="muted">{bytes(file.size)}</span>}
            </div>
          )}
        </Field>
        <Field label={t.importName} hint={t.importNameHint}>
          {(field) => <input {...field} type="text" maxLength={63} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
        </Field>
        <Field label={t.importDescription}>
          {(field) => <input {...field} type="text" maxLength={2000} value={description} onInput={(event) => setDescription(event.currentTarget.value)} />}
        </Field>
        <Switch label={t.importPromote} checked={promote} onChange={setPromote} />
        {sent !== null && (
          <div role="status">
            <Progress value={sent < 1 ? sent : null} label={t.importTitle} />
            <p class="muted small">{sent < 1 ? t.sending(percent(sent, 0)) : t.converting}</p>
          </div>
        )}
        <ErrorBox error={error} />
      </div>
    </Dialog>
  );
}
