import { useState } from "preact/hooks";
import { Button } from "../../components/Button";
import { Sparkline } from "../../components/Chart";
import { Badge, Empty, ErrorBox, Loading } from "../../components/Feedback";
import { useLoad } from "../../load";
import { link } from "../../router";
import { may } from "../../session";
import { ago, percent } from "../../text";
import { byName, fieldName, history, meant, primaryOf, type Model } from "./figures";
import { Import } from "./Import";
import { Marks, Primary, readModels, readShadow } from "./shared";
import { metricName, text } from "./text";

/** Every name: what it means now, and how its versions went. */
export function List() {
  const t = text();
  const models = useLoad(readModels, [], ["model"]);
  const shadow = useLoad(readShadow, [], ["model"]);
  const [importing, setImporting] = useState(false);
  const running = shadow.data?.shadow?.state === "running" ? shadow.data.shadow.model_id : null;
  const rows = byName(models.data?.models ?? []);
  return (
    <>
      <div class="row between">
        <h1>{t.title}</h1>
        <Button icon="upload" reason={!may("admin") && t.adminReason} onClick={() => setImporting(true)}>
          {t.import}
        </Button>
      </div>
      <p class="muted">{t.intro}</p>
      <ErrorBox error={models.error ?? shadow.error} retry={models.reload} />
      {!models.data && models.loading && <Loading />}
      {models.data && !rows.length && (
        <Empty icon="models" title={t.none}>
          <p class="muted">{t.noneHint}</p>
          <a class="button normal" href={link(["train"])}>
            {t.toTrain}
          </a>
        </Empty>
      )}
      <ul class="plain models-list">
        {rows.map((row) => (
          <li key={row.name}>
            <NameCard {...row} shadow={running} />
          </li>
        ))}
      </ul>
      {importing && <Import onClose={() => setImporting(false)} />}
    </>
  );
}

function NameCard({ name, versions, shadow }: { name: string; versions: Model[]; shadow: string | null }) {
  const t = text();
  const model = meant(versions);
  const newest = versions[versions.length - 1]!;
  const metric = primaryOf(model.type);
  const values = history(versions);
  const label = t.trend(metricName(metric, fieldName(metric)), percent(values[0]), percent(values[values.length - 1]));
  return (
    <article class="card models-card">
      <div class="models-card-name">
        <h2>
          <a href={link(["models", name])}>{name}</a>
        </h2>
        <p class="row">
          <Badge>{t.types[model.type]}</Badge>
          {versions.map((one) => (
            <Marks key={one.id} model={one} shadow={shadow} />
          ))}
        </p>
      </div>
      <div class="models-card-figures">
        <Primary model={model} />
        <Sparkline values={values} label={label} />
      </div>
      <p class="muted small models-card-end">
        <a href={link(["models", model.id])} class="mono">
          {model.version}
        </a>
        {!model.promoted && ` · ${t.notPromoted}`}
        {" · "}
        {t.versions(versions.length)}
        {" · "}
        {ago(newest.created_at)}
        {newest !== model && (
          <>
            <br />
            <a href={link(["models", newest.id])}>{t.newer(newest.version)}</a>
          </>
        )}
      </p>
    </article>
  );
}
