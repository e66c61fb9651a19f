/** Dialogs that change something about a version. */
import { useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Confirm } from "../../components/Dialog";
import { ErrorBox } from "../../components/Feedback";
import { Select, Slider } from "../../components/Field";
import { notify } from "../../components/Toast";
import { navigate } from "../../router";
import { percent } from "../../text";
import { byName, meant, type Model } from "./figures";
import { text } from "./text";

interface ActionProps {
  onClose: () => void;
  onDone: () => void;
}

/** Runs `act` once; its error is shown, and what it says on success is told. */
function useAct(act: () => Promise<string>, { onClose, onDone }: ActionProps) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const run = async () => {
    setBusy(true);
    setError(undefined);
    try {
      notify(await act());
      onDone();
      onClose();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return { busy, error, run };
}

export function Rollback({ name, from, to, ...props }: ActionProps & { name: string; from: string; to: string }) {
  const t = text();
  const act = useAct(async () => (await answer(api.POST("/models/{name}/rollback", { params: { path: { name } } }))).message, props);
  return (
    <Confirm title={t.rollbackTitle(name)} act={t.rollback} busy={act.busy} onConfirm={act.run} onClose={props.onClose}>
      <div class="stack">
        <p>{t.rollbackTo(from, to)}</p>
        <ErrorBox error={act.error} />
      </div>
    </Confirm>
  );
}

export function Activate({ model, ...props }: ActionProps & { model: Model }) {
  const t = text();
  const act = useAct(async () => {
    await answer(api.POST("/models/active", { body: { model_id: model.promoted ? model.name : model.id } }));
    return t.activated(model.id);
  }, props);
  return (
    <Confirm title={t.activateTitle(model.id)} act={t.activate} busy={act.busy} onConfirm={act.run} onClose={props.onClose}>
      <div class="stack">
        <p>{model.promoted ? t.activateFollows(model.name) : t.activatePinned}</p>
        <ErrorBox error={act.error} />
      </div>
    </Confirm>
  );
}

export function Delete({ model, ...props }: ActionProps & { model: Model }) {
  const t = text();
  const act = useAct(
    async () => {
      await answer(api.DELETE("/models/{model_id}", { params: { path: { model_id: model.id } } }));
      navigate(["models"], {}, true);
      return t.deleted(model.id);
    },
    { ...props, onDone: () => undefined },
  );
  return (
    <Confirm title={t.deleteTitle(model.id)} act={t.delete} danger busy={act.busy} onConfirm={act.run} onClose={props.onClose}>
      <div class="stack">
        <p>{t.deleteHint}</p>
        <ErrorBox error={act.error} />
      </div>
    </Confirm>
  );
}

type Shadow = Schemas["Shadow"];

/** The names whose traffic a version can be compared on: those of its type that mean another one. */
function counterparts(model: Model, models: Model[]): string[] {
  const rows = byName(models.filter((one) => one.type === model.type)).filter((row) => meant(row.versions).id !== model.id);
  return rows.map((row) => row.name).sort((a, b) => Number(b === model.name) - Number(a === model.name));
}

export function StartShadow({ model, models, running, ...props }: ActionProps & { model: Model; models: Model[]; running: Shadow | null }) {
  const t = text();
  const names = counterparts(model, models);
  const [against, setAgainst] = useState(names[0] ?? "");
  const [fraction, setFraction] = useState(1);
  const act = useAct(async () => {
    await answer(api.POST("/models/shadow", { body: { model_id: model.id, fraction, against } }));
    return t.shadowStarted(model.id);
  }, props);
  return (
    <Confirm title={t.shadowTitle(model.id)} act={t.startShadow} busy={act.busy} onConfirm={act.run} onClose={props.onClose}>
      <div class="stack">
        <p>{t.shadowHint}</p>
        {running && running.model_id !== model.id && <p>{t.shadowReplaces(running.model_id)}</p>}
        {names.length ? <Select label={t.against} value={against} options={names.map((one) => [one, one] as const)} onChange={setAgainst} /> : <p>{t.noCounterpart}</p>}
        <Slider label={t.fraction} min={0.05} step={0.05} value={fraction} shown={percent(fraction, 0)} onInput={setFraction} />
        <ErrorBox error={act.error} />
      </div>
    </Confirm>
  );
}

export async function stopShadow(): Promise<string> {
  await answer(api.DELETE("/models/shadow"));
  return text().shadowStopped;
}
