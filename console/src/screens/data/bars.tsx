/** Bars with their numbers beside them: readable without colours. */
import { number } from "../../text";

export interface Bar {
  label: string;
  href?: string;
  parts: { name: string; value: number; kind: string }[];
}

/** Rows of stacked bars, as a table that screen readers read. */
export function Bars({ caption, head, rows, columns }: { caption: string; head: string; rows: readonly Bar[]; columns: readonly string[] }) {
  const most = Math.max(1, ...rows.map((row) => row.parts.reduce((sum, part) => sum + part.value, 0)));
  return (
    <div class="table" tabIndex={0} role="group" aria-label={caption}>
      <table class="data-bars">
        <thead>
          <tr>
            <th>{head}</th>
            <td class="data-bar-cell" />
            {columns.map((column) => (
              <th key={column} class="number">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.label}>
              <th scope="row" class="data-label">
                {row.href ? <a href={row.href}>{row.label}</a> : row.label}
              </th>
              <td class="data-bar-cell" aria-hidden="true">
                <span class="data-bar">
                  {row.parts.map((part) => (
                    <span key={part.name} class={part.kind} style={{ width: `${(part.value / most) * 100}%` }} />
                  ))}
                </span>
              </td>
              {row.parts.map((part) => (
                <td key={part.name} class={part.value ? "number" : "number muted"}>
                  {number(part.value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export interface Bin {
  label: string;
  /** The same in words, for screen readers. */
  words: string;
  count: number;
}

/** A histogram of a few bins. */
export function HistogramBars({ label, bins }: { label: string; bins: readonly Bin[] }) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  return (
    <ol class="plain data-histogram" aria-label={label}>
      {bins.map((bin) => (
        <li key={bin.label}>
          <span class="unseen">
            {bin.words}: {number(bin.count)}
          </span>
          <span class="data-count" aria-hidden="true">
            {bin.count ? number(bin.count) : ""}
          </span>
          <span class="data-column" aria-hidden="true" style={{ height: `${Math.max(bin.count ? 2 : 0, (bin.count / most) * 96)}px` }} />
          <span class="data-bin" aria-hidden="true">
            {bin.label}
          </span>
        </li>
      ))}
    </ol>
  );
}
