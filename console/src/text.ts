/** The language of the page, and words in both languages; the compiler makes them complete. */
import { effect, signal } from "@preact/signals";
import { remembered, remember } from "./remembered";

export type Language = "en" | "zh";

// A text, or a function of values that returns one.
type Words = { [name: string]: string | ((...values: any[]) => string) | Words };
type Same<T> = {
  [K in keyof T]: T[K] extends string ? string : T[K] extends (...values: infer A) => string ? (...values: A) => string : Same<T[K]>;
};

const preferred: Language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

export const language = signal<Language>((remembered("language") as Language | null) ?? preferred);

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});

/** Change the language, and remember it in this browser. */
export function setLanguage(chosen: Language): void {
  language.value = chosen;
  remember("language", chosen);
}

/** A function that returns the words in the current language. */
export function defineText<T extends Words>(words: { en: T; zh: Same<T> }): () => T {
  return () => words[language.value] as T;
}

const locale = () => (language.value === "zh" ? "zh-CN" : "en-GB");

/** A number for people; `digits` after the point at most. */
export function number(value: number | null | undefined, digits = 0): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toLocaleString(locale(), { maximumFractionDigits: digits });
}

/** A share from 0 to 1 as percent. */
export function percent(share: number | null | undefined, digits = 1): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  return `${number(share * 100, digits)} %`;
}

/** Bytes, with a unit of 1024. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let rest = value;
  while (rest >= 1024 && at < units.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${number(rest, rest < 10 && at > 0 ? 1 : 0)} ${units[at]}`;
}

/** A time of the API (ISO 8601, UTC) in the reader's time zone. */
export function time(iso: string | null | undefined): string {
  if (!iso) return "–";
  return new Date(zoned(iso)).toLocaleString(locale(), { dateStyle: "medium", timeStyle: "short" });
}

/** How long ago a time was, in words. */
export function ago(iso: string | null | undefined, now = Date.now()): string {
  if (!iso) return "–";
  const seconds = (new Date(zoned(iso)).getTime() - now) / 1000;
  const format = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" });
  const steps: [number, Intl.RelativeTimeFormatUnit][] = [[60, "second"], [60, "minute"], [24, "hour"], [30, "day"], [12, "month"]];
  let rest = seconds;
  for (const [size, unit] of steps) {
    if (Math.abs(rest) < size) return format.format(Math.round(rest), unit);
    rest /= size;
  }
  return format.format(Math.round(rest), "year");
}

/** A duration in seconds: "1 h 05 min", "42 s". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const zh = language.value === "zh";
  const [h, m, s] = zh ? ["小时", "分", "秒"] : ["h", "min", "s"];
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} ${s}`;
  if (whole < 3600) return `${Math.floor(whole / 60)} ${m} ${String(whole % 60).padStart(2, "0")} ${s}`;
  return `${Math.floor(whole / 3600)} ${h} ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} ${m}`;
}

function zoned(iso: string): string {
  return /Z$|[+-]\d\d:?\d\d$/.test(iso) ? iso : `${iso}Z`;
}
