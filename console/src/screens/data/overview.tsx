/** Whether a dataset is fit to train on: problems with their images, class balance, histograms. */
import { useEffect, useRef } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { ErrorBox, Loading } from "../../components/Feedback";
import { useLoad } from "../../load";
import { link, route } from "../../router";
import { said } from "../../said";
import { bytes, number } from "../../text";
import type { Dataset } from "./dataset";
import { Bars, HistogramBars, type Bin } from "./bars";
import { imagesOf } from "./list";
import { Problems } from "./problems";
import { text } from "./text";
import { Thumbnail } from "./thumbnail";

type Health = Schemas["DatasetHealth"];

const EXAMPLES = 6;

export default function Overview({ dataset }: { dataset: Dataset }) {
  const t = text().overview;
  const { data: health, error, reload } = useLoad(
    (signal) => answer(api.GET("/api/datasets/{dataset_id}/health", { params: { path: { dataset_id: dataset.id } }, signal })),
    [dataset.id, dataset.revision],
  );
  const objects = health?.splits.reduce((sum, split) => sum + split.objects, 0);
  const received = (dataset.accounting.images ?? {}) as Record<string, number>;
  const kinds = (Object.keys(t.accounting) as (keyof typeof t.accounting)[]).filter((kind) => received[kind]);
  return (
    <div class="stack data-overview">
      <dl class="tiles">
        <Tile name={t.images} value={number(imagesOf(dataset))} />
        {dataset.task !== "classify" && <Tile name={t.objects} value={number(objects)} />}
        <Tile name={t.classes} value={number(dataset.classes.length)} />
        <Tile name={t.review} value={number(dataset.to_review)} />
        <Tile name={t.size} value={bytes(dataset.size_bytes)} />
      </dl>
      <ErrorBox error={error} retry={reload} />
      {!health && !error && <Loading />}
      {health && <Details dataset={dataset} health={health} />}
      {kinds.length > 0 && (
        <section class="card stack tight">
          <h2>{t.received}</h2>
          <dl class="data-pairs">
            {kinds.map((kind) => (
              <div key={kind}>
                <dt>{t.accounting[kind]}</dt>
                <dd>{number(received[kind])}</dd>
              </div>
            ))}
          </dl>
          {dataset.notes.map((note) => (
            <p key={note} class="muted">
              {said(note)}
            </p>
          ))}
        </section>
      )}
    </div>
  );
}

function Tile({ name, value }: { name: string; value: string }) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Details({ dataset, health }: { dataset: Dataset; health: Health }) {
  const t = text();
  const o = t.overview;
  const heading = useRef<HTMLHeadingElement>(null);
  const wanted = route.value.query.has("problems");
  useEffect(() => {
    if (wanted) heading.current!.scrollIntoView();
  }, [wanted]);
  const problems = health.problems.filter((one) => one.kind !== "unlabelled" || !dataset.to_review);
  const splits = health.splits.map((split) => split.split || "none") as (keyof typeof t.splits)[];
  const rows = health.classes.map((row) => ({
    label: row.name,
    href: link(["data", dataset.id, "images"], { class: row.name }),
    parts: splits.map((split) => ({ name: split, value: row.objects[split] ?? 0, kind: split })),
  }));
  const side = (value: number) => `${number(value * 100)}%`;
  return (
    <>
      <section class="card stack tight">
        <h2 ref={heading}>{o.problems}</h2>
        <Problems problems={problems}>{(problem) => <Examples dataset={dataset} problem={problem} />}</Problems>
      </section>
      <section class="stack tight">
        <h2>{o.balance}</h2>
        <p class="muted">{dataset.task === "classify" ? o.balanceClassifyHint : o.balanceHint}</p>
        {rows.length ? (
          <>
            <p class="row data-legend" aria-hidden="true">
              {splits.map((split) => (
                <span key={split}>
                  <i class={split} /> {t.splits[split]}
                </span>
              ))}
            </p>
            <Bars caption={o.balance} head={o.class} rows={rows} columns={splits.map((split) => t.splits[split])} />
          </>
        ) : (
          <p class="muted">{o.noClasses}</p>
        )}
      </section>
      <div class="columns">
        {dataset.task !== "classify" && (
          <Part title={o.boxes} hint={o.boxesHint} bins={bins(health.box_shares, side)} />
        )}
        {dataset.task !== "classify" && (
          <Part title={o.counts} hint={o.countsHint} bins={bins(health.objects_per_image, (value) => number(value), true)} />
        )}
        <Part title={o.sides} hint={o.sidesHint} bins={bins(health.image_sides, String)} />
      </div>
    </>
  );
}

function Part({ title, hint, bins: shown }: { title: string; hint: string; bins: Bin[] }) {
  return (
    <section class="card stack tight">
      <h2>{title}</h2>
      <p class="muted small">{hint}</p>
      <HistogramBars label={title} bins={shown} />
    </section>
  );
}

/** The bins of a histogram with their words. `whole`: values are whole numbers. */
function bins(histogram: Schemas["Histogram"], format: (value: number) => string, whole = false): Bin[] {
  const o = text().overview;
  return histogram.edges.map((edge, at) => {
    const next = histogram.edges[at + 1];
    const last = whole && next !== undefined ? next - 1 : next;
    const words = next === undefined ? o.over(format(edge)) : last === edge ? format(edge) : o.bin(format(edge), format(last!));
    const label = next === undefined ? `≥${format(edge)}` : last === edge ? format(edge) : whole ? `${format(edge)}–${format(last!)}` : `<${format(next)}`;
    return { label, words, count: histogram.counts[at] ?? 0 };
  });
}

function Examples({ dataset, problem }: { dataset: Dataset; problem: Schemas["HealthProblem"] }) {
  const t = text().overview;
  if (!problem.images) return null;
  return (
    <div class="stack tight">
      <ul class="plain data-examples">
        {problem.shown.slice(0, EXAMPLES).map((image, at) => (
          <li key={at}>
            <a href={link(["annotate", dataset.id, image.content])} title={`${image.name}: ${image.problems[problem.kind] ?? ""}`} aria-label={image.name}>
              <Thumbnail image={image} />
            </a>
          </li>
        ))}
      </ul>
      <p>
        <a href={link(["data", dataset.id, "images"], { problem: problem.kind })}>
          {problem.images === 1 ? t.showImage : t.showImages(number(problem.images))}
        </a>
      </p>
    </div>
  );
}
