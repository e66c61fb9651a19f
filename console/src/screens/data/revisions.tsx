/** The revisions of a dataset, and what changed from one to another: per class and per image. */
import { address, answer, api, local } from "../../api";
import { Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Select } from "../../components/Field";
import { DECODING } from "../../decoding";
import { useLoad } from "../../load";
import { link, route, setQuery } from "../../router";
import { number, percent, time } from "../../text";
import type { Dataset } from "./dataset";
import { text } from "./text";

interface Revision {
  revision: number;
  data_path: string;
  created_at: string;
  pictures: number | null;
  annotated: number | null;
  to_review: number;
  objects: number | null;
}

const KINDS = ["accepted", "moved", "relabelled", "added", "removed"] as const;
type Counts = Record<(typeof KINDS)[number], number> & { name: string; precision: number | null; recall: number | null };

interface Compared extends Omit<Counts, "name"> {
  before: string;
  classes: Counts[];
  relabelled_pairs: { from: string; to: string; count: number }[];
}

type ChangedImage = Record<(typeof KINDS)[number], number> & { image: string; content: string };

export default function Revisions({ dataset }: { dataset: Dataset }) {
  const t = text();
  const r = t.revisions;
  const { data, error, reload } = useLoad(
    (signal) => answer(api.GET("/api/datasets/{dataset_id}/revisions", { params: { path: { dataset_id: dataset.id } }, signal })),
    [dataset.id, dataset.revision],
    ["dataset"],
  );
  if (error && !data) return <ErrorBox error={error} retry={reload} />;
  if (!data) return <Loading />;
  const rows = data.revisions as unknown as Revision[];
  const made = rows.filter((row) => row.revision > 0);
  const to = Number(route.value.query.get("to") ?? made[0]?.revision ?? 0);
  const from = route.value.query.get("from") ?? "";
  return (
    <div class="stack">
      <ErrorBox error={error} retry={reload} />
      {!made.length && (
        <Empty icon="loop" title={r.none}>
          <p class="muted">{r.noneHint}</p>
        </Empty>
      )}
      <div class="table" tabIndex={0} role="group" aria-label={t.tabs.revisions}>
        <table>
          <thead>
            <tr>
              <th>{r.revision}</th>
              <th>{r.created}</th>
              <th class="number">{t.overview.images}</th>
              <th class="number">{t.overview.objects}</th>
              <th class="number">{r.annotated}</th>
              <th class="number">{r.review}</th>
              <th>
                <span class="unseen">{r.show}</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.revision}>
                <th scope="row">
                  <code>{row.data_path}</code>
                </th>
                <td class="nowrap">{time(row.created_at)}</td>
                <td class="number">{number(row.pictures)}</td>
                <td class="number">{number(row.objects)}</td>
                <td class="number">{number(row.annotated)}</td>
                <td class="number">{number(row.to_review)}</td>
                <td class="nowrap">
                  <a href={link(["data", dataset.id, "images"], { revision: row.revision })} aria-label={`${r.show} ${row.data_path}`}>
                    {r.show}
                  </a>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {made.length > 0 && (
        <section class="stack">
          <h2>{r.compare}</h2>
          <div class="filters">
            <Select
              label={r.from}
              value={from}
              onChange={(value) => setQuery({ from: value })}
              options={[["", r.prelabels], ...rows.filter((row) => row.revision !== to).map((row) => [String(row.revision), t.revision(row.revision)] as const)]}
            />
            <Select label={r.to} value={String(to)} onChange={(value) => setQuery({ to: value })} options={made.map((row) => [String(row.revision), t.revision(row.revision)] as const)} />
          </div>
          <Difference dataset={dataset} from={from} to={to} />
        </section>
      )}
    </div>
  );
}

function Difference({ dataset, from, to }: { dataset: Dataset; from: string; to: number }) {
  const t = text().revisions;
  const { data, error, reload } = useLoad(
    (signal) => {
      const params = { path: { dataset_id: dataset.id, revision: to }, query: from ? { against: Number(from) } : {} };
      return answer(api.GET("/api/datasets/{dataset_id}/revisions/{revision}/diff", { params, signal }));
    },
    [dataset.id, from, to],
  );
  if (error) return <ErrorBox error={error} retry={reload} />;
  if (!data) return <Loading />;
  const compared = data.compared as unknown as Compared[];
  const changed = data.changed as unknown as ChangedImage[];
  return (
    <div class="stack">
      {!compared.length && <p class="muted">{t.same}</p>}
      {compared.map((one) => (
        <div key={one.before} class="stack tight">
          <h3>{t.before(sourceOf(one.before))}</h3>
          <Classes compared={one} />
          {one.relabelled_pairs.length > 0 && (
            <p>
              {t.pairs}: {one.relabelled_pairs.slice(0, 5).map((pair) => `${pair.from} → ${pair.to} (${number(pair.count)})`).join(", ")}
            </p>
          )}
        </div>
      ))}
      {data.changed_count > 0 && (
        <div class="stack tight">
          <h3>{t.changedImages(number(data.changed_count))}</h3>
          {data.changed_count > changed.length && <p class="muted">{t.first(number(changed.length))}</p>}
          <ul class="plain data-changed">
            {changed.map((row) => (
              <li key={row.content}>
                <a href={link(["annotate", dataset.id, row.content])}>
                  <img src={local(address(`/api/datasets/${dataset.id}/images/${row.content}?size=160&decoding=${DECODING}`))} alt="" loading="lazy" decoding="async" />
                  <span class="grow">
                    <span class="clip">{row.image.split("/").at(-1)}</span>
                    <span class="muted small">
                      {KINDS.filter((kind) => kind !== "accepted" && row[kind])
                        .map((kind) => `${t.kinds[kind]} ${number(row[kind])}`)
                        .join(", ")}
                    </span>
                  </span>
                </a>
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}

/** What the earlier annotations are from: another revision, the upload, or a model. */
function sourceOf(before: string): string {
  const number = /^revision (\d+)$/.exec(before)?.[1];
  if (number !== undefined) return text().revision(Number(number));
  return before === "original" ? text().authors.original : before;
}

function Classes({ compared }: { compared: Compared }) {
  const t = text().revisions;
  const rows: Counts[] = [{ ...compared, name: t.all }, ...compared.classes];
  return (
    <div class="table" tabIndex={0} role="group" aria-label={t.compare}>
      <table>
        <thead>
          <tr>
            <th>{t.class}</th>
            {KINDS.map((kind) => (
              <th key={kind} class="number">
                {t.kinds[kind]}
              </th>
            ))}
            <th class="number">{t.precision}</th>
            <th class="number">{t.recall}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row, at) => (
            <tr key={at}>
              <th scope="row" class="data-label">
                {row.name}
              </th>
              {KINDS.map((kind) => (
                <td key={kind} class={row[kind] ? "number" : "number muted"}>
                  {number(row[kind])}
                </td>
              ))}
              <td class="number">{percent(row.precision)}</td>
              <td class="number">{percent(row.recall)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
