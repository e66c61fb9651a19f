import { useState } from "preact/hooks";
import { answer, api, ApiError, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Badge, Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Select } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { useLoad } from "../../load";
import { link, navigate, route, setQuery } from "../../router";
import { may } from "../../session";
import { number, percent } from "../../text";
import { said } from "../../said";
import { Evaluate } from "./Evaluate";
import { fieldName, primaryOf, sharesOf, type Model } from "./figures";
import { Promote } from "./Promote";
import { Delta, points, readModels } from "./shared";
import { SideBySide } from "./SideBySide";
import { metricName, text } from "./text";

type Comparison = Schemas["Comparison"];

/** Two versions on the same images: `#/models/B/compare?a=A`. */
export function Compare({ b }: { b: string }) {
  const t = text();
  const models = useLoad(readModels, [], ["model"]);
  const [promoting, setPromoting] = useState(false);
  if (!models.data) return models.error ? <ErrorBox error={models.error} retry={models.reload} /> : <Loading />;
  const all = models.data.models;
  const second = all.find((one) => one.id === b || (one.name === b && one.promoted));
  const others = all.filter((one) => one.type === second?.type && one.id !== second?.id);
  const a = route.value.query.get("a") ?? others.find((one) => one.name === second?.name && one.promoted)?.id ?? others.find((one) => one.name === second?.name)?.id ?? "";
  const first = all.find((one) => one.id === a);
  const options = (chosen: string) => {
    const found = all.filter((one) => one.type === second?.type).map((one) => [one.id, marked(one)] as const);
    return found.some(([id]) => id === chosen) ? found : [[chosen, chosen || "–"] as const, ...found];
  };
  return (
    <>
      <nav aria-label={t.all}>
        <a class="back" href={link(["models", b])}>
          <Icon name="back" size={16} />
          {b}
        </a>
      </nav>
      <div class="row between">
        <h1>{t.compareTitle}</h1>
        {second && (
          <Button kind="primary" icon="check" reason={!may("admin") ? t.adminReason : second.promoted && t.isPromoted} onClick={() => setPromoting(true)}>
            {t.promoteB}
          </Button>
        )}
      </div>
      {!second ? (
        <Empty icon="models" title={t.noVersion}>
          <a href={link(["models"])}>{t.all}</a>
        </Empty>
      ) : !others.length ? (
        <Empty icon="models" title={t.onlyOne}>
          <a href={link(["models"])}>{t.all}</a>
        </Empty>
      ) : (
        <>
          <div class="card models-pair">
            <Select label={t.a} value={a} options={options(a)} onChange={(id) => setQuery({ a: id })} />
            <Button icon="loop" label={t.swap} onClick={() => a && navigate(["models", a, "compare"], { a: second.id })} />
            <Select label={t.b} value={second.id} options={options(second.id)} onChange={(id) => navigate(["models", id, "compare"], { a })} />
          </div>
          {first && first !== second ? <Compared key={`${first.id} ${second.id}`} a={first} b={second} /> : <p class="muted">{t.pickTwo}</p>}
        </>
      )}
      {promoting && second && <Promote model={second} onClose={() => setPromoting(false)} onDone={models.reload} />}
    </>
  );
}

function marked(model: Model): string {
  const t = text();
  return [model.id, model.promoted && t.promoted, model.active && t.active].filter(Boolean).join(" · ");
}

function Compared({ a: first, b: second }: { a: Model; b: Model }) {
  const t = text();
  const { type } = second;
  const [a, b] = [first.id, second.id];
  const found = useLoad((signal) => answer(api.GET("/metrics/compare", { params: { query: { a, b } }, signal })), [a, b], ["model"]);
  if (found.error) return <NotComparable error={found.error} a={first} b={second} retry={found.reload} />;
  if (!found.data) {
    return (
      <div>
        <Loading />
        <p class="muted">{t.computing}</p>
      </div>
    );
  }
  const compared = found.data;
  const { name, split, images } = compared.dataset as { name: string; split: string; images: number };
  return (
    <>
      <p class="muted">{t.onImages(number(images), name, split)}</p>
      <Figures compared={compared} type={type} />
      <ClassTable compared={compared} type={type} />
      <ChangedImages compared={compared} a={a} b={b} />
      {compared.notes.map((note) => (
        <p key={note} class="muted small">
          {said(note)}
        </p>
      ))}
    </>
  );
}

/** A 404 or 409 says what is missing; each version can be evaluated from here. */
function NotComparable({ error, a, b, retry }: { error: unknown; a: Model; b: Model; retry: () => void }) {
  const t = text();
  const [evaluating, setEvaluating] = useState<Model | null>(null);
  const missing = error instanceof ApiError && [404, 409].includes(error.status);
  const reason = !may("train") && t.trainReason;
  const other = evaluating === a ? b : a;
  return (
    <div class="stack">
      <ErrorBox error={error} retry={retry} />
      {missing && (
        <div class="row">
          <Button reason={reason} onClick={() => setEvaluating(a)}>
            {t.evaluateA}
          </Button>
          <Button reason={reason} onClick={() => setEvaluating(b)}>
            {t.evaluateB}
          </Button>
        </div>
      )}
      {evaluating && <Evaluate model={evaluating} like={other.metrics?.dataset as string | undefined} onClose={() => setEvaluating(null)} />}
    </div>
  );
}

function Figures({ compared, type }: { compared: Comparison; type: Model["type"] }) {
  const t = text();
  const present = Object.fromEntries(Object.entries(compared.figures).map(([name, one]) => [name, one.a]));
  const names = sharesOf(type, present);
  const widest = Math.max(0.01, ...Object.values(compared.intervals).flatMap((one) => [Math.abs(one.low), Math.abs(one.high)]));
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t.compareTitle}>
      <table>
        <thead>
          <tr>
            <th>{t.metric}</th>
            <th class="number">A</th>
            <th class="number">B</th>
            <th class="number">{t.delta}</th>
            <th>{t.interval}</th>
          </tr>
        </thead>
        <tbody>
          {names.map((name) => {
            const row = compared.figures[name]!;
            return (
              <tr key={name}>
                <td class="nowrap">{metricName(name, fieldName(name))}</td>
                <td class="number">{percent(row.a)}</td>
                <td class="number">{percent(row.b)}</td>
                <td class="number">
                  <Delta delta={row.delta} />
                </td>
                <td>{compared.intervals[name] && <Interval one={compared.intervals[name]} widest={widest} />}</td>
              </tr>
            );
          })}
          {compared.speed.inference && (
            <tr>
              <td class="nowrap">{metricName("inference_time", null)}</td>
              <td class="number">{number(compared.speed.inference.a, 1)}</td>
              <td class="number">{number(compared.speed.inference.b, 1)}</td>
              <td class="number">{number(compared.speed.inference.delta, 1).replace("-", "−")}</td>
              <td />
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

/** The interval of a difference around zero, with what it means in words. */
function Interval({ one, widest }: { one: Schemas["Interval"]; widest: number }) {
  const t = text();
  const at = (value: number) => 60 + (value / widest) * 54;
  const verdict = one.low > 0 ? t.sure : one.high < 0 ? t.sureWorse : t.unsure;
  const kind = one.low > 0 ? "up" : one.high < 0 ? "down" : "same";
  return (
    <div class={`models-interval ${kind}`}>
      <svg width={120} height={20} viewBox="0 0 120 20" aria-hidden="true">
        <line class="zero" x1={60} x2={60} y1={1} y2={19} />
        <line class="span" x1={at(one.low)} x2={Math.max(at(one.high), at(one.low) + 1)} y1={10} y2={10} />
        <circle cx={at(one.difference)} cy={10} r={4} />
      </svg>
      <span class="nowrap small">
        {points(one.low)} … {points(one.high)}
      </span>
      <Badge kind={kind === "up" ? "good" : kind === "down" ? "bad" : "plain"}>{verdict}</Badge>
    </div>
  );
}

function ClassTable({ compared, type }: { compared: Comparison; type: Model["type"] }) {
  const t = text();
  const [everything, setEverything] = useState(false);
  const metric = primaryOf(type);
  const rows = compared.classes.map((row) => ({ ...row, change: row.delta[metric] ?? 0 })).sort((x, y) => x.change - y.change);
  const regressed = rows.filter((row) => row.change < 0).length;
  const improved = rows.filter((row) => row.change > 0).length;
  const shown = everything ? rows : rows.filter((row) => row.change !== 0);
  return (
    <section class="stack tight">
      <div class="row between">
        <h2 class="row">
          {regressed > 0 && <Icon name="warn" />}
          <span>{t.regressedCount(regressed)}</span>
          <span class="muted small">
            {t.improvedCount(improved)} · {t.sameCount(rows.length - regressed - improved)}
          </span>
        </h2>
        <Button size="small" pressed={everything} onClick={() => setEverything(!everything)}>
          {everything ? t.showChanged : t.showAll}
        </Button>
      </div>
      {shown.length > 0 && (
        <div class="table models-scroll" tabIndex={0} role="region" aria-label={t.classes}>
          <table>
            <thead>
              <tr>
                <th>{t.class}</th>
                <th class="number">{t.instances}</th>
                <th class="number">A</th>
                <th class="number">B</th>
                <th class="number">{t.delta}</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((row) => (
                <tr key={row.name}>
                  <td>{row.name}</td>
                  <td class="number">{number(row.instances)}</td>
                  <td class="number">{percent(row.a[metric])}</td>
                  <td class="number">{percent(row.b[metric])}</td>
                  <td class="number">
                    <Delta delta={row.change} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

type Changed = Schemas["ChangedImage"];

function ChangedImages({ compared, a, b }: { compared: Comparison; a: string; b: string }) {
  const t = text();
  const [seen, setSeen] = useState<Changed | null>(null);
  const { images } = compared;
  return (
    <div class="columns">
      <ImageList title={t.broken} hint={t.brokenHint} none={t.noBroken} count={images.broken} rows={images.broken_images} kind="down" onSee={setSeen} />
      <ImageList title={t.fixed} hint={t.fixedHint} none={t.noFixed} count={images.fixed} rows={images.fixed_images} kind="up" onSee={setSeen} />
      {seen && <SideBySide image={seen} compared={compared} a={a} b={b} onClose={() => setSeen(null)} />}
    </div>
  );
}

interface ImageListProps {
  title: string;
  hint: string;
  none: string;
  count: number;
  rows: Changed[];
  kind: "up" | "down";
  onSee: (image: Changed) => void;
}

function ImageList({ title, hint, none, count, rows, kind, onSee }: ImageListProps) {
  const t = text();
  return (
    <section class="card stack tight">
      <h2>
        {title} <span class="count">{number(count)}</span>
      </h2>
      <p class="muted small">{hint}</p>
      {rows.length === 0 && <p class="muted">{none}</p>}
      <ul class="plain models-images" tabIndex={rows.length ? 0 : undefined} aria-label={title}>
        {rows.map((one) => (
          <li key={one.image}>
            <button type="button" class="models-image" aria-label={t.seeImage(one.image)} onClick={() => onSee(one)}>
              <span class="grow clip">{one.image}</span>
              <span class={`models-delta nowrap ${kind}`}>{t.errorsFromTo(one.a, one.b)}</span>
              <Icon name="eye" size={16} />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
