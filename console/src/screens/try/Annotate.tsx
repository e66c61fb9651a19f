import { useState } from "preact/hooks";
import { answer, api, ApiError, sendForm, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorBox, Notice, Progress } from "../../components/Feedback";
import { Field, Select } from "../../components/Field";
import { useLoad } from "../../load";
import { link } from "../../router";
import type { Model } from "./predict";
import { text } from "./text";

type Task = "detect" | "segment" | "pose" | "classify";
type Dataset = Schemas["Dataset"];
type NewImages = Schemas["NewImages"];

const TASKS: Record<Model["type"], Task> = { detection: "detect", segmentation: "segment", pose: "pose", classification: "classify" };
const NEW = "";

/** Puts the image into a dataset, where it waits to be annotated. */
export function Annotate({ file, model, onClose }: { file: File; model: Model | undefined; onClose: () => void }) {
  const t = text();
  const datasets = useLoad((signal) => answer(api.GET("/api/datasets", { signal })), []);
  const [target, setTarget] = useState(NEW);
  const [name, setName] = useState(t.dataset);
  const [task, setTask] = useState<Task>(model ? TASKS[model.type] : "detect");
  const [classes, setClasses] = useState((model?.classes ?? []).join("\n"));
  const [sending, setSending] = useState<number | null>(null);
  const [error, setError] = useState<unknown>();
  const [done, setDone] = useState<{ id: string; name: string; content: string; already: boolean } | null>(null);
  const [wrong, setWrong] = useState<{ name?: string; classes?: string }>({});

  const send = async () => {
    const words = classes.split("\n").map((one) => one.trim()).filter(Boolean);
    const found = target === NEW ? { name: name.trim() ? undefined : t.nameMissing, classes: words.length ? undefined : t.classesMissing } : {};
    setWrong(found);
    if (found.name || found.classes) return;
    const form = new FormData();
    form.append("file", file, file.name || "pasted.png");
    setSending(0);
    setError(undefined);
    try {
      if (target === NEW) {
        form.append("name", name.trim());
        form.append("task", task);
        form.append("classes", JSON.stringify(words));
        const made = await sendForm<Dataset>("/api/datasets", form, { onProgress: setSending });
        setDone({ id: made.id, name: made.name, content: "", already: false });
      } else {
        const added = await sendForm<NewImages>(`/api/datasets/${encodeURIComponent(target)}/images`, form, { onProgress: setSending });
        const image = added.images[0];
        if (image?.outcome === "refused") throw new ApiError(400, { message: image.reason });
        const chosen = datasets.data?.datasets.find((one) => one.id === target);
        setDone({ id: target, name: chosen?.name ?? target, content: image?.content ?? "", already: image?.outcome === "duplicate" });
      }
    } catch (failed) {
      setError(failed);
    } finally {
      setSending(null);
    }
  };

  return (
    <Dialog
      title={t.annotate}
      onClose={onClose}
      actions={
        done ? (
          <>
            <a class="button normal" href={link(["data", done.id])}>
              {t.openData}
            </a>
            <a class="button primary normal" href={link(done.content ? ["annotate", done.id, done.content] : ["annotate", done.id])}>
              {t.openQueue}
            </a>
          </>
        ) : (
          <Button kind="primary" busy={sending !== null} onClick={send}>
            {t.send}
          </Button>
        )
      }
    >
      {done ? (
        <Notice kind="good">{done.already ? t.sentAlready(done.name) : t.sent(done.name)}</Notice>
      ) : (
        <div class="stack">
          <ErrorBox error={datasets.error} retry={datasets.reload} />
          <Select label={t.where} value={target} options={[[NEW, t.newDataset], ...(datasets.data?.datasets ?? []).map((one) => [one.id, `${one.name} · ${t.tasks[one.task]}`] as const)]} onChange={setTarget} />
          {target === NEW && (
            <>
              <Field label={t.name} error={wrong.name}>
                {(control) => <input {...control} type="text" maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
              </Field>
              <Select label={t.task} value={task} options={(Object.keys(t.tasks) as Task[]).map((one) => [one, t.tasks[one]] as const)} onChange={(one) => setTask(one as Task)} />
              <Field label={t.classesField} hint={t.classesFieldHint} error={wrong.classes}>
                {(control) => <textarea {...control} rows={6} value={classes} onInput={(event) => setClasses(event.currentTarget.value)} />}
              </Field>
            </>
          )}
          {sending !== null && <Progress value={sending < 1 ? sending : null} label={t.annotate} />}
          <ErrorBox error={error} />
        </div>
      )}
    </Dialog>
  );
}
