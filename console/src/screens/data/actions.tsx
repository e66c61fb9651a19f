/** What can be done with a dataset: annotate, train, pre-annotate, export, delete. */
import { useEffect, useState } from "preact/hooks";
import { address, answer, api, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { ErrorBox, JobState, Loading, Notice, Progress, type StateName } from "../../components/Feedback";
import { Field, Select, Slider, Switch } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { words } from "../../components/text";
import { notify, notifyError } from "../../components/Toast";
import { on } from "../../events";
import { useLoad } from "../../load";
import { link, navigate } from "../../router";
import { may } from "../../session";
import { said } from "../../said";
import type { Dataset } from "./dataset";
import { text } from "./text";

type Shown = "export" | "delete" | "prelabel" | null;

export function Actions({ dataset }: { dataset: Dataset }) {
  const t = text();
  const [shown, setShown] = useState<Shown>(null);
  const close = () => setShown(null);
  return (
    <div class="row">
      <a class="button primary normal" href={link(["annotate", dataset.id])}>
        <Icon name="annotate" />
        {t.actions.annotate}
      </a>
      <a class="button normal" href={link(["train", "new"], { dataset: dataset.id })}>
        <Icon name="train" />
        {t.actions.train}
      </a>
      <Button icon="models" reason={may("annotate") ? null : t.needs("annotate")} onClick={() => setShown("prelabel")}>
        {t.actions.prelabel}
      </Button>
      <Button icon="download" onClick={() => setShown("export")}>
        {t.actions.export}
      </Button>
      <Button kind="quiet" icon="trash" label={t.actions.delete} reason={may("admin") ? null : t.needs("admin")} onClick={() => setShown("delete")} />
      {shown === "export" && <Export dataset={dataset} onClose={close} />}
      {shown === "delete" && <Delete dataset={dataset} onClose={close} />}
      {shown === "prelabel" && <Prelabel dataset={dataset} onClose={close} />}
    </div>
  );
}

function Export({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  const t = text().exporting;
  const names = Object.keys(t.formats) as (keyof typeof t.formats)[];
  const [format, setFormat] = useState<string>("yolo");
  const [revision, setRevision] = useState("");
  const [images, setImages] = useState(true);
  const numbers = Array.from({ length: dataset.revision + 1 }, (_, at) => String(dataset.revision - at));
  const { data } = useLoad(
    (signal) => answer(api.GET("/api/datasets/{dataset_id}/revisions", { params: { path: { dataset_id: dataset.id } }, signal })),
    [dataset.id],
  );
  const known = data ? data.revisions.map((row) => String((row as { revision?: number }).revision)) : numbers;
  const query = new URLSearchParams({ format, ...(revision ? { revision } : {}), images: String(images) });
  return (
    <Dialog
      title={t.title}
      onClose={onClose}
      actions={
        <a class="button primary normal" href={address(`/api/datasets/${dataset.id}/export?${query}`)} download onClick={() => setTimeout(onClose, 300)}>
          <Icon name="download" />
          {t.download}
        </a>
      }
    >
      <div class="stack">
        <Select label={t.format} value={format} onChange={setFormat} options={names.map((name) => [name, t.formats[name]] as const)} />
        <Select
          label={t.revision}
          value={revision}
          onChange={setRevision}
          options={[["", t.newest], ...known.map((one) => [one, text().revision(Number(one))] as const)]}
        />
        <Switch label={t.withImages} checked={images} onChange={setImages} />
      </div>
    </Dialog>
  );
}

function Delete({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  const t = text().deleting;
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const remove = async () => {
    setBusy(true);
    try {
      await answer(api.DELETE("/api/datasets/{dataset_id}", { params: { path: { dataset_id: dataset.id } } }));
      notify(t.done(dataset.name));
      navigate(["data"]);
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  };
  return (
    <Dialog
      title={t.title}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{words().cancel}</Button>
          <Button kind="danger" busy={busy} reason={typed === dataset.name ? null : t.mismatch} onClick={() => void remove()}>
            {t.act}
          </Button>
        </>
      }
    >
      <div class="stack">
        <Notice kind="warn">{t.warning}</Notice>
        <Field label={t.type(dataset.name)}>{(control) => <input {...control} autocomplete="off" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />}</Field>
        <ErrorBox error={error} />
      </div>
    </Dialog>
  );
}

const TOOLS = { detection: "object_detection", segmentation: "image_segmentation", classification: "image_classification", pose: "keypoint_detection" } as const;
const TYPES = { detect: "detection", segment: "segmentation", classify: "classification", pose: "pose" } as const;

function Prelabel({ dataset, onClose }: { dataset: Dataset; onClose: () => void }) {
  const t = text().prelabel;
  const { data, error } = useLoad((signal) => answer(api.GET("/models", { signal })), []);
  const [chosen, setChosen] = useState("");
  const [accept, setAccept] = useState(0.7);
  const [review, setReview] = useState(0.25);
  const [refused, setRefused] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [started, setStarted] = useState<Schemas["BatchStarted"] | null>(null);
  const wanted = TYPES[dataset.task];
  const models = [...(data?.models ?? [])].sort((a, b) => Number(b.type === wanted) - Number(a.type === wanted) || Number(b.active) - Number(a.active) || Number(b.promoted) - Number(a.promoted));
  const model = models.find((one) => one.id === chosen) ?? models[0];
  const reason = !model ? t.noModels : review > accept ? t.order : null;
  const begin = async () => {
    setBusy(true);
    setRefused(undefined);
    try {
      const body = { dataset: dataset.id, tool: TOOLS[model!.type], model: model!.id, bands: { accept, review }, name: `${dataset.name} · ${model!.name}`.slice(0, 60) };
      setStarted(await answer(api.POST("/api/auto_annotate/batch", { body: body as never })));
    } catch (why) {
      setRefused(why);
    }
    setBusy(false);
  };
  return (
    <Dialog
      title={t.title}
      onClose={onClose}
      actions={
        !started && (
          <Button kind="primary" busy={busy} reason={reason} onClick={() => void begin()}>
            {t.start}
          </Button>
        )
      }
    >
      <div class="stack">
        {started ? (
          <Running started={started} onClose={onClose} />
        ) : (
          <>
            <p class="muted">{t.intro}</p>
            <ErrorBox error={error ?? refused} />
            {!data && !error && <Loading />}
            {data && (
              <>
                {models.length > 0 ? <Select label={t.model} value={model!.id} onChange={setChosen} options={models.map((one) => [one.id, one.id] as const)} /> : <Notice kind="warn">{t.noModels}</Notice>}
                <Slider label={t.accept} value={accept} onInput={setAccept} />
                <Slider label={t.review} value={review} onInput={setReview} />
                {reason && <p class="field-error">{reason}</p>}
              </>
            )}
          </>
        )}
      </div>
    </Dialog>
  );
}

/** The job of a batch annotation, until the new dataset is there. */
function Running({ started, onClose }: { started: Schemas["BatchStarted"]; onClose: () => void }) {
  const t = text().prelabel;
  const { data: job, error, reload } = useLoad(
    (signal) => answer(api.GET("/jobs/{job_id}", { params: { path: { job_id: started.job_id } }, signal })),
    [started.job_id],
  );
  const ended = job && ["completed", "failed", "stopped"].includes(job.status);
  useEffect(() => {
    if (ended) return;
    const timer = setInterval(reload, 1500);
    const stop = on("job", (event) => event.job_id === started.job_id && reload());
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [ended]);
  const cancel = () => answer(api.POST("/jobs/{job_id}/cancel", { params: { path: { job_id: started.job_id } } })).then(reload, notifyError);
  return (
    <>
      <ErrorBox error={error} />
      {job && (
        <p role="status">
          <JobState state={job.status as StateName} />
        </p>
      )}
      {!ended && <Progress value={job ? job.progress / 100 : null} label={t.title} />}
      {job?.status === "failed" && <Notice kind="error">{said(job.error ?? "")}</Notice>}
      {job?.status === "completed" && (
        <>
          <Notice kind="good">{t.done}</Notice>
          <div class="row">
            <a class="button primary normal" href={link(["data", started.dataset_id])} onClick={onClose}>
              {t.open}
            </a>
          </div>
        </>
      )}
      {!ended && (
        <div class="row end">
          <Button onClick={() => void cancel()}>{words().cancel}</Button>
        </div>
      )}
    </>
  );
}
