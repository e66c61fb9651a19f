import type { ComponentChildren } from "preact";
import { answer, api, type Schemas } from "../../api";
import { Chart, Sparkline } from "../../components/Chart";
import { Badge, ErrorBox, Loading } from "../../components/Feedback";
import { Icon } from "../../components/Icon";
import { useInterval, useLoad } from "../../load";
import { link } from "../../router";
import { ago, bytes, number, percent } from "../../text";
import { byKind, errorsByCode, hasValues, lastWith, perMinute } from "./figures";
import { text } from "./text";

type Stats = Schemas["Stats"];

const RENEW = 5000; // milliseconds
const HEIGHT = 140;
const FULL = 0.1; // share of a disk below which it is nearly full

export function Overview() {
  const t = text();
  const stats = useLoad((signal) => answer(api.GET("/stats", { signal })), [], ["job", "model"]);
  useInterval(stats.reload, RENEW);
  const found = stats.data;
  if (!found) return stats.error ? <ErrorBox error={stats.error} retry={stats.reload} /> : <Loading />;
  return (
    <>
      {stats.error ? <ErrorBox error={stats.error} retry={stats.reload} /> : null}
      <p class="muted small">{t.renewed(ago(new Date(1000 * found.at).toISOString()))}</p>
      <Figures stats={found} />
      <Charts stats={found} />
      <div class="operate-panels">
        <Errors stats={found} />
        <Drift stats={found} />
        <Loaded stats={found} />
        <Processes stats={found} />
        <Machine stats={found} />
      </div>
    </>
  );
}

function milliseconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${number(value, value < 10 ? 1 : 0)} ms` : `${number(value / 1000, 1)} s`;
}

function Figures({ stats }: { stats: Stats }) {
  const t = text();
  const last = stats.steps.at(-1);
  const latency = lastWith(stats.steps, "p50_ms");
  const batch = lastWith(stats.steps, "batch_size");
  const queued = stats.runners.reduce((sum, one) => sum + one.queued + one.loading, 0);
  const calls = stats.runners.reduce((sum, one) => sum + one.calls, 0);
  const resident = stats.processes.reduce((sum, one) => sum + one.resident_bytes, 0);
  const running = (stats.jobs.running ?? 0) + (stats.jobs.stopping ?? 0);
  return (
    <dl class="tiles operate-tiles">
      <Tile name={t.images} more={t.requestsToo(number(last?.requests_per_second, 1))} line={stats.steps.map((step) => step.images_per_second)}>
        {number(last?.images_per_second, 1)}
        <small>{t.perSecond}</small>
      </Tile>
      <Tile name={t.latency} more={t.p99(milliseconds(latency?.p99_ms))}>
        {milliseconds(latency?.p50_ms)}
      </Tile>
      <Tile name={t.batch} more={batch ? t.mean : t.noBatch}>
        {number(batch?.batch_size, 1)}
      </Tile>
      <Tile name={t.queue} more={t.inFlight(number(calls))}>
        {number(queued)}
      </Tile>
      <Tile name={t.memory} more={t.memoryOf(bytes(stats.memory_available_bytes))}>
        {bytes(resident)}
      </Tile>
      <Tile name={t.jobs} more={t.waiting(number(stats.jobs.queued ?? 0))}>
        {number(running)}
      </Tile>
    </dl>
  );
}

function Tile({ name, more, line, children }: { name: string; more: string; line?: number[]; children: ComponentChildren }) {
  return (
    <div class="tile">
      <dt>{name}</dt>
      <dd>
        {children}
        {line && <Sparkline values={line} label={name} width={72} height={22} />}
      </dd>
      <dd class="operate-more">{more}</dd>
    </div>
  );
}

function Charts({ stats }: { stats: Stats }) {
  const t = text();
  const { steps } = stats;
  if (steps.length < 2) return <p class="muted card">{t.soon}</p>;
  const x = steps.map((step) => step.at);
  const one = (value: number) => number(value, 1);
  return (
    <div class="operate-charts">
      <Panel title={t.traffic}>
        <Chart
          label={t.traffic}
          x={x}
          time
          height={HEIGHT}
          format={one}
          lines={[
            { label: t.imagesLine, values: steps.map((step) => step.images_per_second) },
            { label: t.requestsLine, values: steps.map((step) => step.requests_per_second), dashed: true },
          ]}
        />
      </Panel>
      <Panel title={t.latencyChart}>
        {hasValues(steps.map((step) => step.p50_ms)) ? (
          <Chart
            label={t.latencyChart}
            x={x}
            time
            height={HEIGHT}
            format={milliseconds}
            lines={[
              { label: t.p50Line, values: steps.map((step) => step.p50_ms) },
              { label: t.p99Line, values: steps.map((step) => step.p99_ms), dashed: true },
            ]}
          />
        ) : (
          <p class="muted operate-nothing">
            {t.noTraffic} <a href={link(["try"])}>{t.tryOne}</a>
          </p>
        )}
      </Panel>
      <Panel title={t.loadChart}>
        <Chart
          label={t.loadChart}
          x={x}
          time
          height={HEIGHT}
          format={one}
          lines={[
            { label: t.batchLine, values: steps.map((step) => step.batch_size) },
            { label: t.queueLine, values: steps.map((step) => step.queued), dashed: true },
          ]}
        />
      </Panel>
      <Panel title={t.errorsChart}>
        <Chart
          label={t.errorsChart}
          x={x}
          time
          height={HEIGHT}
          format={one}
          lines={[
            { label: t.clientLine, values: steps.map((step) => perMinute(step, step.client_errors)) },
            { label: t.serverLine, values: steps.map((step) => perMinute(step, step.server_errors)), dashed: true },
          ]}
        />
      </Panel>
    </div>
  );
}

function Panel({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <section class="card operate-panel">
      <h2>{title}</h2>
      {children}
    </section>
  );
}

function Errors({ stats }: { stats: Stats }) {
  const t = text();
  const rows = errorsByCode(stats.steps);
  return (
    <Panel title={t.errors}>
      {rows.length ? (
        <ul class="plain operate-list">
          {rows.map(([code, count]) => (
            <li key={code} class="row between">
              <span class="mono grow operate-word">{code}</span>
              <span>{number(count)}</span>
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">{t.noErrors}</p>
      )}
    </Panel>
  );
}

function Drift({ stats }: { stats: Stats }) {
  const t = text();
  const kinds: Record<string, "good" | "warn" | "bad" | "plain"> = { stable: "good", "within chance": "plain", "moderate shift": "warn", "large shift": "bad" };
  return (
    <Panel title={t.drift}>
      {stats.drift.length ? (
        <ul class="plain operate-list">
          {stats.drift.map((one) => (
            <li key={one.model_id} class="stack tight">
              <div class="row between">
                <a class="mono operate-word" href={link(["models", one.model_id])}>
                  {one.model_id}
                </a>
                <Badge kind={kinds[one.verdict] ?? "plain"}>
                  {one.verdict.endsWith("shift") && <Icon name="warn" size={13} />}
                  {t.verdicts[one.verdict] ?? one.verdict}
                </Badge>
              </div>
              <p class="muted small">{t.index(number(one.index, 3), number(one.by_chance, 3))}</p>
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">{t.noDrift}</p>
      )}
    </Panel>
  );
}

function Loaded({ stats }: { stats: Stats }) {
  const t = text();
  return (
    <Panel title={t.loaded}>
      {stats.loaded.length ? (
        <ul class="plain operate-list">
          {stats.loaded.map((one) => (
            <li key={`${one.runner} ${one.model_id}`} class="row between">
              <a class="mono operate-word" href={link(["models", one.model_id])}>
                {one.model_id}
              </a>
              <span class="muted small">
                {one.engine} · {t.names[one.runner === "detector" ? "Detector" : "Annotator"]}
              </span>
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">{t.noneLoaded}</p>
      )}
      <ul class="plain operate-list" aria-label={t.runners}>
        {stats.runners.map((one) => (
          <li key={one.runner} class="row between">
            <span>{t.names[one.runner === "detector" ? "Detector" : "Annotator"]}</span>
            <Badge kind={one.up ? "good" : "bad"}>
              <Icon name={one.up ? "check" : "error"} size={13} />
              {one.up ? t.up : t.down}
            </Badge>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function Processes({ stats }: { stats: Stats }) {
  const t = text();
  return (
    <Panel title={t.processes}>
      <ul class="plain operate-list">
        {byKind(stats.processes).map((row) => (
          <li key={row.kind} class="row between" title={row.pids.map((pid) => `${t.pid} ${pid}`).join(", ")}>
            <span class="grow">
              {t.names[row.kind] ?? row.kind}
              {row.pids.length > 1 && <span class="muted"> ×{row.pids.length}</span>}
            </span>
            <span>{bytes(row.bytes)}</span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function Machine({ stats }: { stats: Stats }) {
  const t = text();
  return (
    <Panel title={t.machine}>
      <ul class="plain operate-list">
        <li>{t.cpu(percent(stats.cpu_percent / 100, 0), stats.cores)}</li>
        <li>{t.ram(bytes(stats.memory_available_bytes), bytes(stats.memory_bytes))}</li>
        {stats.gpus.map((gpu) => (
          <li key={gpu.index}>{t.gpu(gpu.name, bytes(gpu.used_bytes), bytes(gpu.size_bytes), percent(gpu.busy, 0))}</li>
        ))}
        {stats.disks.map((disk) => (
          <li key={disk.folder} class="row between">
            <span class="grow operate-word">{t.disk(disk.folder, bytes(disk.free_bytes), bytes(disk.size_bytes))}</span>
            {disk.free_bytes < FULL * disk.size_bytes && (
              <Badge kind="warn">
                <Icon name="warn" size={13} />
                {t.low}
              </Badge>
            )}
          </li>
        ))}
      </ul>
      <p class="muted small">{t.sampled(number(stats.sample_ms, 1))}</p>
    </Panel>
  );
}
