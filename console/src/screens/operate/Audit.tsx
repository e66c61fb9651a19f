import { useEffect, useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { Button } from "../../components/Button";
import { Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Field } from "../../components/Field";
import { notifyError } from "../../components/Toast";
import { useLoad } from "../../load";
import { route, setQuery } from "../../router";
import { time } from "../../text";
import { text } from "./text";

const PAGE = 100;

type Row = Schemas["AuditRow"];

/** Who changed what, and who was refused. */
export function Audit() {
  const t = text();
  const what = route.value.query.get("what") ?? "";
  const read = (before?: number, signal?: AbortSignal) => answer(api.GET("/audit", { params: { query: { what, limit: PAGE, before } }, signal }));
  const first = useLoad((signal) => read(undefined, signal), [what]);
  const [older, setOlder] = useState<{ of: string; rows: Row[]; next: number | null }>();
  const [busy, setBusy] = useState(false);
  useEffect(() => setOlder(undefined), [first.data]);
  const rows = [...(first.data?.entries ?? []), ...(older?.of === what ? older.rows : [])];
  const next = older?.of === what ? older.next : (first.data?.next ?? null);
  const more = () => {
    setBusy(true);
    read(next!)
      .then((page) => setOlder({ of: what, rows: [...(older?.rows ?? []), ...page.entries], next: page.next }))
      .catch(notifyError)
      .finally(() => setBusy(false));
  };
  return (
    <>
      <div class="filters">
        <Field label={t.search}>{(control) => <input {...control} type="search" value={what} onChange={(event) => setQuery({ what: event.currentTarget.value.trim() })} />}</Field>
      </div>
      <ErrorBox error={first.error} retry={first.reload} />
      {!first.data ? (
        !first.error && <Loading />
      ) : rows.length ? (
        <div class="table" tabIndex={0} role="region" aria-label={t.audit}>
          <table>
            <thead>
              <tr>
                <th>{t.at}</th>
                <th>{t.who}</th>
                <th>{t.what}</th>
                <th class="number">{t.answerOf}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.number}>
                  <td class="nowrap">{time(row.at)}</td>
                  <td>
                    {row.who}
                    {row.address && <span class="muted small"> {row.address}</span>}
                  </td>
                  <td>
                    {row.what || row.route}
                    {row.target && <span class="mono muted operate-word"> {row.target}</span>}
                  </td>
                  <td class="number">{row.status ?? "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <Empty icon="user" title={what ? t.noneMatch : t.noAudit} />
      )}
      {next !== null && rows.length > 0 && (
        <div class="row">
          <Button busy={busy} onClick={more}>
            {t.older}
          </Button>
        </div>
      )}
    </>
  );
}
