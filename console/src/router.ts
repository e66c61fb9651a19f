/** Routes in the address's hash: `#/models/signs?tab=classes`. Every state has an address. */
import { computed, signal } from "@preact/signals";

export interface Route {
  /** Decoded parts of the path: ["models", "signs"]. */
  path: string[];
  query: URLSearchParams;
}

function parsed(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a percent sign that encodes nothing
  }
}

export const route = signal<Route>(parsed());
export const screen = computed(() => route.value.path[0] ?? "");

addEventListener("hashchange", () => (route.value = parsed()));

type Query = Record<string, string | number | boolean | null | undefined>;

/** The link to a path; empty values of the query are left out. */
export function link(path: (string | number)[], query: Query = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${path.map((part) => encodeURIComponent(part)).join("/")}${text ? `?${text}` : ""}`;
}

/** Go to a path, with an entry in the browser's history unless `replace`. */
export function navigate(path: (string | number)[], query: Query = {}, replace = false): void {
  const hash = link(path, query);
  if (hash === location.hash) return;
  if (replace) {
    history.replaceState(null, "", hash);
    route.value = parsed();
  } else {
    location.hash = hash;
  }
}

/** Change some values of the query and stay; for filters. */
export function setQuery(changes: Query, replace = true): void {
  const query = Object.fromEntries(route.value.query.entries());
  navigate(route.value.path, { ...query, ...changes }, replace);
}
