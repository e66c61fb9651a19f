/** Line charts by uPlot, in the page's colours, as wide as their place. */
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { language, type Language } from "../text";
import { dark } from "../theme";
import { words } from "./text";
import { notifyError } from "./Toast";

// uPlot is a sixth of the page's script: it is fetched with the first chart.
const plotter = signal<typeof uPlot | null>(null);

function fetchPlotter(): void {
  if (!plotter.value) import("uplot").then((found) => (plotter.value = found.default), notifyError);
}

export interface Line {
  label: string;
  /** One value for each x; null: there is none. */
  values: readonly (number | null | undefined)[];
  /** CSS colour; otherwise the next of the chart's colours. */
  colour?: string;
  dashed?: boolean;
}

export interface ChartProps {
  /** What it shows, for screen readers. */
  label: string;
  /** Epochs, or seconds since 1970 if `time`. */
  x: readonly number[];
  lines: readonly Line[];
  time?: boolean;
  height?: number;
  /** Writes a value on the axis and in the legend. */
  format?: (value: number) => string;
  /** Whether the axis begins at zero; default true. */
  zero?: boolean;
  xLabel?: string;
}

const LIGHT = ["#2456d6", "#b3420f", "#1a7f4b", "#8a3fc4", "#a3620a", "#0b7285"];
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]; // there is no half epoch
const DARK = ["#7aa2ff", "#ff9e6b", "#5fd394", "#c79bff", "#f0c05a", "#66d0e0"];

export function Chart({ label, x, lines, time = false, height = 180, format = String, zero = true, xLabel }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const isDark = dark.value;
  const lang = language.value;
  const Plot = plotter.value;
  const shape = `${isDark} ${lang} ${time} ${height} ${zero} ${xLabel} ${lines.map((line) => `${line.label}|${line.colour}|${line.dashed}`).join()}`;
  const data = [x, ...lines.map((line) => line.values.map((value) => value ?? null))] as unknown as uPlot.AlignedData;
  const latest = useRef({ data, format });
  latest.current = { data, format };

  useEffect(fetchPlotter, []);

  useEffect(() => {
    if (!Plot) return;
    const element = place.current!;
    const colours = isDark ? DARK : LIGHT;
    const muted = isDark ? "#9aa4b1" : "#5b6470";
    const grid = { stroke: isDark ? "#2a303a" : "#e3e6ea", width: 1 };
    const axis = { stroke: muted, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const options: uPlot.Options = {
      width: Math.max(element.clientWidth, 160),
      height,
      scales: { x: { time }, y: { range: (_, low, high) => span(low, high, zero) } },
      axes: [
        {
          ...axis,
          label: xLabel,
          labelSize: xLabel ? 18 : 0,
          labelFont: axis.font,
          space: 70,
          size: 32,
          ...(time ? { values: (_: uPlot, ticks: number[]) => ticks.map((tick) => clock(tick, lang, ticks[1]! - ticks[0]! < 60)) } : { incrs: WHOLE }),
        },
        { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => latest.current.format(tick)) },
      ],
      series: [
        time ? { label: words().time, value: (_: uPlot, value: number | null) => (value === null || value === undefined ? "–" : clock(value, lang, true)) } : xLabel ? { label: xLabel, value: (_: uPlot, value: number | null) => value ?? "–" } : {},
        ...lines.map((line, at) => {
          const stroke = line.colour ?? colours[at % colours.length];
          return {
            label: line.label,
            stroke,
            width: 1.75,
            dash: line.dashed ? [5, 4] : undefined,
            points: { show: (self: uPlot) => self.data[0].length < 3, filter: alone, size: 6, fill: stroke },
            spanGaps: false,
            value: (_: uPlot, value: number | null) => (value === null || value === undefined ? "–" : latest.current.format(value)),
          };
        }),
      ],
      padding: [null, time ? 28 : null, null, null], // the last time is centred under the edge
      cursor: { points: { size: 7 } },
      legend: { live: true },
    };
    const made = new Plot(options, latest.current.data, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(element.clientWidth, 160), height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, Plot]);

  useEffect(() => {
    plot.current?.setData(data);
  }, [x, ...lines.map((line) => line.values)].map((one) => one.join()));

  return <div ref={place} class="chart" role="img" aria-label={label} />;
}

/** The values without a neighbour: no line shows them. None while all points are shown. */
function alone(self: uPlot, line: number, all: boolean): number[] | null {
  const values = self.data[line]!;
  return all ? null : [...values.keys()].filter((at) => values[at] !== null && (values[at - 1] ?? values[at + 1] ?? null) === null);
}

/** A time in seconds since 1970 in the reader's time zone, without the date. */
function clock(seconds: number, lang: Language, exact = false): string {
  return new Date(1000 * seconds).toLocaleTimeString(lang === "zh" ? "zh-CN" : "en-GB", { timeStyle: exact ? "medium" : "short" });
}

function span(low: number | null, high: number | null, zero: boolean): [number, number] {
  const least = zero ? Math.min(0, low ?? 0) : (low ?? 0);
  const most = high ?? 1;
  if (least === most) return [least, least + 1];
  const room = (most - least) * 0.06;
  return [zero && least === 0 ? 0 : least - room, most + room];
}

/** A small line without axes; its first and last value are told. */
export function Sparkline({ values, label, width = 88, height = 24 }: { values: readonly number[]; label: string; width?: number; height?: number }) {
  if (values.length < 2) return null;
  const low = Math.min(...values);
  const range = Math.max(...values) - low || 1;
  const points = values.map((value, at) => `${((at / (values.length - 1)) * (width - 4) + 2).toFixed(1)},${(height - 3 - ((value - low) / range) * (height - 6)).toFixed(1)}`);
  const [endX, endY] = points[points.length - 1]!.split(",");
  return (
    <svg class="sparkline" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
      <polyline points={points.join(" ")} />
      <circle cx={endX} cy={endY} r={2.25} />
    </svg>
  );
}
