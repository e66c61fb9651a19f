import { useEffect, useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Confirm } from "../../components/Dialog";
import { ErrorBox } from "../../components/Feedback";
import { Select } from "../../components/Field";
import { notify } from "../../components/Toast";
import { useLoad } from "../../load";
import type { Model } from "./figures";
import { text } from "./text";

type Dataset = Schemas["Dataset"];

const TASKS: Record<Model["type"], Dataset["task"]> = { detection: "detect", segmentation: "segment", pose: "pose", classification: "classify" };
const OWN = "";

/** The uploaded datasets of a model's task. */
export function useDatasets(type: Model["type"]) {
  const found = useLoad((signal) => answer(api.GET("/api/datasets", { signal })), [], ["dataset"]);
  return { ...found, list: (found.data?.datasets ?? []).filter((one) => one.task === TASKS[type]) };
}

/** Chooses a dataset; the empty value is what is meant without one. */
export function DatasetChoice({ label, none, value, list, onChange }: { label: string; none: string; value: string; list: Dataset[]; onChange: (id: string) => void }) {
  return <Select label={label} value={value} options={[[OWN, none], ...list.map((one) => [one.id, `${one.name} (${one.id})`] as const)]} onChange={onChange} />;
}

/** Queues an evaluation. `like`: the name of the dataset that another version was evaluated on. */
export function Evaluate({ model, like, onClose }: { model: Model; like?: string; onClose: () => void }) {
  const t = text();
  const datasets = useDatasets(model.type);
  const [dataset, setDataset] = useState(OWN);
  const [split, setSplit] = useState("val");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const trained = typeof model.source.dataset === "string" || model.source.kind === "starter";
  useEffect(() => {
    const first = datasets.list.find((one) => one.name === like) ?? (trained ? undefined : datasets.list[0]);
    if (first) setDataset(first.id);
  }, [datasets.data]);
  const start = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const body = { split, dataset_path: dataset || undefined };
      await answer(api.POST("/metrics/{model_id}/evaluate", { params: { path: { model_id: model.id } }, body }));
      notify(t.evaluationQueued);
      onClose();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return (
    <Confirm title={t.evaluateTitle(model.id)} act={t.evaluate} busy={busy} onConfirm={start} onClose={onClose}>
      <div class="stack">
        <p class="muted">{t.evaluateHint}</p>
        <ErrorBox error={datasets.error} retry={datasets.reload} />
        <DatasetChoice label={t.evaluateOn} none={t.trainedOn} value={dataset} list={datasets.list} onChange={setDataset} />
        <Select label={t.split} value={split} options={["val", "test", "train"].map((one) => [one, one] as const)} onChange={setSplit} />
        <ErrorBox error={error} />
      </div>
    </Confirm>
  );
}
