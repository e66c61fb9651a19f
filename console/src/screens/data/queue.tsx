/** The images of a dataset that wait for people, their drafts, and the way to a commit. */
import { useState } from "preact/hooks";
import { address, local } from "../../api";
import { Button } from "../../components/Button";
import { Confirm } from "../../components/Dialog";
import { Empty, ErrorBox, Loading, Notice } from "../../components/Feedback";
import { Field, Select } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { notifyError } from "../../components/Toast";
import { DECODING } from "../../decoding";
import { useInterval, useLoad } from "../../load";
import { link, route, setQuery } from "../../router";
import { may, session } from "../../session";
import { ago, number } from "../../text";
import { author, server, setAuthor, theOutbox, type DraftRow, type QueueRow } from "../annotate/sync/index";
import { said } from "../../said";
import Commit from "./commit";
import "./queue.css";
import { text } from "./queue-text";

const PAGE = 50;
const MOST = 500; // rows that the server answers at once
const AGAIN = 20_000; // milliseconds: others claim, skip and accept, too

export default function Queue({ dataset }: { dataset: { id: string } }) {
  const t = text();
  const id = dataset.id;
  const skipped = route.value.query.get("show") === "skipped" ? "only" : "last";
  const [limit, setLimit] = useState(PAGE);
  const mayAnnotate = may("annotate");
  const { data, error, reload } = useLoad(() => server.queue(id, { limit: String(limit), skipped }), [id, limit, skipped], ["dataset"]);
  const drafts = useLoad(async () => (mayAnnotate ? await server.drafts(id) : null), [id, mayAnnotate], ["dataset"]);
  const again = () => {
    reload();
    drafts.reload();
  };
  useInterval(again, AGAIN);
  const [committing, setCommitting] = useState(false);
  const accepted = drafts.data?.counts.accepted ?? 0;
  if (error && !data) return <ErrorBox error={error} retry={reload} />;
  if (!data) return <Loading />;

  const act = (done: Promise<unknown>) => void done.then(again, notifyError);
  return (
    <div class="stack">
      <ErrorBox error={error} retry={reload} />
      <div class="row between">
        <p class="row queue-counts">
          <span>{t.waiting(number(data.waiting))}</span>
          {data.accepted > 0 && <span>{t.accepted(number(data.accepted))}</span>}
          {data.skipped > 0 && <span>{t.skipped(number(data.skipped))}</span>}
        </p>
        <div class="row">
          <a class="button normal" href={link(["annotate", id])}>
            <Icon name="annotate" />
            {t.next}
          </a>
          <Button kind="primary" icon="check" reason={!mayAnnotate ? t.needs : accepted ? null : t.nothingAccepted} onClick={() => setCommitting(true)}>
            {`${t.commit}${accepted ? ` (${number(accepted)})` : ""}`}
          </Button>
        </div>
      </div>
      <Unsent dataset={id} />
      {drafts.error ? <ErrorBox error={drafts.error} retry={drafts.reload} /> : null}
      {drafts.data && <DraftTable dataset={id} rows={drafts.data.drafts} act={act} />}
      <section class="stack">
        <div class="row between">
          <p class="muted">{t.order}</p>
          <div class="filters">
            <Select
              label={t.show}
              value={skipped === "only" ? "skipped" : ""}
              onChange={(value) => setQuery({ show: value })}
              options={[
                ["", t.all],
                ["skipped", t.onlySkipped],
              ]}
            />
          </div>
        </div>
        {data.queue.length === 0 ? (
          <Empty icon="check" title={t.empty}>
            <p class="muted">{t.emptyHint}</p>
          </Empty>
        ) : (
          <ul class="plain queue-list">
            {data.queue.map((row) => (
              <Row key={row.content} dataset={id} row={row} mayAnnotate={mayAnnotate} act={act} />
            ))}
          </ul>
        )}
        {data.queue.length >= limit && limit < MOST && (
          <div>
            <Button onClick={() => setLimit((before) => Math.min(MOST, before + PAGE))}>{t.more}</Button>
          </div>
        )}
      </section>
      <Name />
      {committing && <Commit dataset={id} onClose={() => setCommitting(false)} onChange={again} />}
    </div>
  );
}

interface RowProps {
  dataset: string;
  row: QueueRow;
  mayAnnotate: boolean;
  act: (done: Promise<unknown>) => void;
}

function Row({ dataset, row, mayAnnotate, act }: RowProps) {
  const t = text();
  const name = row.image.split("/").at(-1) ?? row.image;
  return (
    <li class="card queue-row">
      <a class="queue-open" href={link(["annotate", dataset, row.content])}>
        <img src={local(address(`/api/datasets/${dataset}/images/${row.content}?size=160&decoding=${DECODING}`))} alt="" loading="lazy" decoding="async" />
        <span class="grow">
          <span class="clip" title={row.image}>
            {name}
          </span>
          <span class="muted small">
            {row.width} × {row.height}
            {row.prelabels > 0 && ` · ${t.prelabels}: ${number(row.prelabels)}`}
          </span>
        </span>
      </a>
      <span class="muted small queue-why">{said(row.reason)}</span>
      <span class="row queue-end">
        {row.skipped_by !== null && <span class="badge warn">{t.skippedBy(row.skipped_by, row.skip_reason ?? "")}</span>}
        {row.claimed_by !== null && <span class="badge accent">{isMe(row.claimed_by) ? t.claimedByYou : t.claimed(row.claimed_by)}</span>}
        {row.skipped_by === null ? (
          <Button size="small" label={`${t.skip}: ${name}`} reason={mayAnnotate ? null : t.needs} onClick={() => act(server.skip(row.content, ""))}>
            {t.skip}
          </Button>
        ) : (
          <Button size="small" reason={mayAnnotate ? null : t.needs} onClick={() => act(server.unskip([row.content]))}>
            {t.unskip}
          </Button>
        )}
      </span>
    </li>
  );
}

function DraftTable({ dataset, rows, act }: { dataset: string; rows: DraftRow[]; act: RowProps["act"] }) {
  const t = text();
  const [dropping, setDropping] = useState<DraftRow | null>(null);
  const [gone, setGone] = useState<[author: string, how: "take-over" | "discard"] | null>(null);
  const others = may("admin") ? [...new Set(rows.filter((row) => !row.mine).map((row) => row.author))] : [];
  if (!rows.length) return <p class="muted">{t.noDrafts}</p>;
  return (
    <section class="stack tight">
      <h2>{t.drafts}</h2>
      <div class="table queue-drafts" tabIndex={0} role="group" aria-label={t.drafts}>
        <table>
          <thead>
            <tr>
              <th>{t.image}</th>
              <th>{t.state}</th>
              <th>{t.author}</th>
              <th class="number">{t.objects}</th>
              <th>{t.changed}</th>
              <th>
                <span class="unseen">{t.actions}</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={`${row.content} ${row.author}`}>
                <th scope="row" class="queue-name">
                  <a href={link(["annotate", dataset, row.content])}>{row.image.split("/").at(-1)}</a>
                </th>
                <td class="nowrap">
                  <span class={`badge ${row.state === "accepted" ? "good" : row.state === "skipped" ? "warn" : "plain"}`}>{t.states[row.state]}</span>
                </td>
                <td>{row.mine ? t.you : row.author}</td>
                <td class="number">{number(row.object_count)}</td>
                <td class="nowrap">{ago(row.updated_at)}</td>
                <td>{row.mine && <Button size="small" kind="quiet" icon="trash" label={`${t.discard}: ${row.image}`} onClick={() => setDropping(row)} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {others.map((who) => (
        <p key={who} class="row">
          {who}
          <Button size="small" onClick={() => setGone([who, "take-over"])}>
            {t.takeOver}
          </Button>
          <Button size="small" kind="danger" onClick={() => setGone([who, "discard"])}>
            {t.discard}
          </Button>
        </p>
      ))}
      {gone && (
        <Confirm
          title={`${gone[1] === "discard" ? t.discard : t.takeOver}: ${gone[0]}`}
          act={gone[1] === "discard" ? t.discard : t.takeOver}
          danger={gone[1] === "discard"}
          onClose={() => setGone(null)}
          onConfirm={() => {
            act(server.settle(dataset, ...gone));
            setGone(null);
          }}
        >
          <p>{t.goneHint[gone[1]]}</p>
        </Confirm>
      )}
      {dropping && (
        <Confirm
          title={t.discardTitle}
          act={t.discard}
          danger
          onClose={() => setDropping(null)}
          onConfirm={() => {
            act(server.discard(dataset, dropping.content, dropping.etag));
            setDropping(null);
          }}
        >
          <p>{t.discardHint(dropping.image)}</p>
        </Confirm>
      )}
    </section>
  );
}

/** Whether a name that the server tells is the caller's. */
function isMe(name: string): boolean {
  return name === session.value?.who || name === `${author()} (unverified)`;
}

/** Work of this browser that the server has not confirmed. */
function Unsent({ dataset }: { dataset: string }) {
  const t = text();
  const rows = theOutbox().pending.value.filter((one) => one.dataset === dataset);
  if (!rows.length) return null;
  return (
    <Notice kind="warn">
      <p>
        <strong>{t.unsent}</strong> {t.unsentHint}
      </p>
      <ul class="plain">
        {rows.map((row) => (
          <li key={row.content}>
            <a href={link(["annotate", dataset, row.content])}>{row.name}</a> {said(row.message) || row.theirs?.author}
          </li>
        ))}
      </ul>
    </Notice>
  );
}

/** The annotator's name, where no named token says it. */
function Name() {
  const t = text();
  const [name, setName] = useState(author());
  const who = session.value?.who ?? "";
  if (who && who !== "open" && !who.includes(" ")) return null; // a named token
  return (
    <form
      class="queue-author"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim()) setAuthor(name);
      }}
    >
      <Field label={t.name} hint={t.nameHint}>
        {(control) => <input {...control} type="text" maxLength={60} value={name} onInput={(event) => setName(event.currentTarget.value)} />}
      </Field>
      <Button type="submit">{t.rename}</Button>
    </form>
  );
}
