import { useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Chart } from "../../components/Chart";
import { Badge, Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Icon, type IconName } from "../../components/Icon";
import { useLoad } from "../../load";
import { link } from "../../router";
import { may } from "../../session";
import { ago, percent, time } from "../../text";
import { said } from "../../said";
import { Rollback } from "./actions";
import { byName, fieldName, primaryOf, sharesOf, value, type Model } from "./figures";
import { Promote } from "./Promote";
import { Delta, Marks, readModels, readShadow } from "./shared";
import { metricName, text } from "./text";

type Decision = Schemas["Decision"];

/** The versions of a name, and what was decided about them. */
export function NamePage({ name }: { name: string }) {
  const t = text();
  const models = useLoad(readModels, [], ["model"]);
  const shadow = useLoad(readShadow, [], ["model"]);
  const decisions = useLoad((signal) => answer(api.GET("/models/{name}/decisions", { params: { path: { name } }, signal })), [name], ["model"]);
  const [promoting, setPromoting] = useState<Model | null>(null);
  const [rolling, setRolling] = useState(false);
  const versions = byName(models.data?.models ?? []).find((row) => row.name === name)?.versions ?? [];
  const again = () => {
    models.reload();
    decisions.reload();
  };
  if (!models.data) return models.error ? <ErrorBox error={models.error} retry={models.reload} /> : <Loading />;
  if (!versions.length) {
    return (
      <Empty icon="models" title={t.noVersion}>
        <a href={link(["models"])}>{t.all}</a>
      </Empty>
    );
  }
  const promoted = versions.find((one) => one.promoted);
  const newest = versions[versions.length - 1]!;
  const running = shadow.data?.shadow?.state === "running" ? shadow.data.shadow.model_id : null;
  const back = decisions.data?.rolls_back_to;
  return (
    <>
      <nav aria-label={t.all}>
        <a class="back" href={link(["models"])}>
          <Icon name="back" size={16} />
          {t.all}
        </a>
      </nav>
      <div class="row between">
        <div class="row">
          <h1>{name}</h1>
          <Badge>{t.types[newest.type]}</Badge>
        </div>
        <div class="row">
          <a class="button normal" href={link(["loop"], { name })}>
            <Icon name="loop" />
            {t.loop}
          </a>
          <Button icon="undo" reason={!may("admin") ? t.adminReason : !back && t.rollbackNone} onClick={() => setRolling(true)}>
            {t.rollback}
          </Button>
        </div>
      </div>
      <ErrorBox error={decisions.error ?? shadow.error} />
      <Versions versions={versions} promoted={promoted} shadow={running} onPromote={setPromoting} />
      <Trend versions={versions} />
      <section class="stack">
        <h2>{t.decisions}</h2>
        {decisions.data && <Decisions rows={decisions.data.decisions} />}
      </section>
      {promoting && <Promote model={promoting} onClose={() => setPromoting(null)} onDone={again} />}
      {rolling && promoted && back && <Rollback name={name} from={promoted.id} to={back} onClose={() => setRolling(false)} onDone={again} />}
    </>
  );
}

function Versions({ versions, promoted, shadow, onPromote }: { versions: Model[]; promoted?: Model; shadow: string | null; onPromote: (model: Model) => void }) {
  const t = text();
  const metric = primaryOf(versions[0]!.type);
  const reference = promoted ? value(promoted.metrics, metric) : null;
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t.versions(versions.length)}>
      <table>
        <thead>
          <tr>
            <th>{t.version}</th>
            <th class="number">{metricName(metric, fieldName(metric))}</th>
            <th class="number">{t.difference}</th>
            <th>{t.source}</th>
            <th>{t.created}</th>
            <th>
              <span class="unseen">{t.actions}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {[...versions].reverse().map((one) => {
            const found = value(one.metrics, metric);
            const comparable = promoted && one !== promoted && found !== null && reference !== null && one.metrics?.dataset === promoted.metrics?.dataset;
            return (
              <tr key={one.id}>
                <td class="nowrap">
                  <a class="mono" href={link(["models", one.id])}>
                    {one.version}
                  </a>{" "}
                  <Marks model={one} shadow={shadow} />
                </td>
                <td class="number">{percent(found)}</td>
                <td class="number">{comparable ? <Delta delta={found - reference} /> : "–"}</td>
                <td class="nowrap">{sourceName(one)}</td>
                <td class="nowrap" title={time(one.created_at)}>
                  {ago(one.created_at)}
                </td>
                <td>
                  <div class="models-row-actions">
                    <Button size="small" reason={!may("admin") ? t.adminReason : one.promoted && t.isPromoted} label={`${t.promote} ${one.version}`} onClick={() => onPromote(one)}>
                      {t.promote}
                    </Button>
                    {promoted && one !== promoted && (
                      <a class="button small" href={link(["models", one.id, "compare"], { a: promoted.id })}>
                        {t.compare}
                      </a>
                    )}
                  </div>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

export function sourceName(model: Model): string {
  const kind = String(model.source.kind ?? "");
  const words: Record<string, string> = text().sources;
  return words[kind] ?? kind;
}

/** The metrics of the versions over time, if there are several. */
function Trend({ versions }: { versions: Model[] }) {
  const measured = versions.filter((one) => value(one.metrics, primaryOf(one.type)) !== null);
  if (measured.length < 2) return null;
  const names = sharesOf(measured[0]!.type, measured[measured.length - 1]!.metrics).slice(0, 3);
  const metric = primaryOf(measured[0]!.type);
  return (
    <div class="card">
      <Chart
        label={names.map((name) => metricName(name, fieldName(name))).join(", ")}
        x={measured.map((one) => Date.parse(one.created_at) / 1000)}
        time
        lines={names.map((name) => ({ label: metricName(name, fieldName(name)), values: measured.map((one) => value(one.metrics, name)), dashed: name !== metric }))}
        format={(share) => percent(share, 0)}
        zero={false}
      />
    </div>
  );
}

const ICONS: Record<Decision["action"], IconName> = { promoted: "check", refused: "error", rolled_back: "undo", deleted: "trash" };

function Decisions({ rows }: { rows: Decision[] }) {
  const t = text();
  if (!rows.length) return <p class="muted">{t.noDecisions}</p>;
  return (
    <ol class="plain models-decisions">
      {rows.map((one) => (
        <li key={`${one.at} ${one.model_id} ${one.action}`} class={one.action}>
          <Icon name={ICONS[one.action]} />
          <div class="grow">
            <p>
              <a class="mono" href={link(["models", one.model_id])}>
                {one.model_id}
              </a>{" "}
              <b>{t.actionNames[one.action]}</b>
              {one.forced && ` (${t.forcedWord})`}
            </p>
            {one.reasons.map((reason) => (
              <p key={reason} class="small">
                {said(reason)}
              </p>
            ))}
            <p class="muted small">
              {time(one.at)} · {t.by(one.by)}
            </p>
          </div>
        </li>
      ))}
    </ol>
  );
}
