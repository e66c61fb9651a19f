/** The images of a dataset: a grid with filters, all of which are in the address. */
import { Component } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { answer, api, type Schemas } from "../../api";
import { classColour } from "../../colours";
import { Button } from "../../components/Button";
import { Empty, ErrorBox, Loading, Notice } from "../../components/Feedback";
import { Field, Select, Switch } from "../../components/Field";
import { Icon } from "../../components/Icon";
import { link, route, setQuery } from "../../router";
import { may, signIns } from "../../session";
import { language, number } from "../../text";
import type { Dataset } from "./dataset";
import { text } from "./text";
import { contentsOf, Thumbnail, type ListedImage } from "./thumbnail";

type ImageList = Schemas["ImageList"];
type FacetName = "split" | "class" | "state" | "author" | "problem";

const FACETS: FacetName[] = ["split", "class", "state", "author", "problem"];
const PAGE = 120; // fills whole rows of 1 to 6 tiles
const GAP = 10; // pixels between tiles, as in data.css
const TYPING = 250; // ms until a text that is typed is searched for

interface Found {
  /** As they came: what was shown before stays as it is when a page is added. */
  pages: ListedImage[][];
  first: ImageList;
  next: string | null;
}

export default function Images({ dataset }: { dataset: Dataset }) {
  const t = text();
  const query = route.value.query;
  const filters = Object.fromEntries([...FACETS, "q", "revision"].map((name) => [name, query.get(name) ?? ""]));
  const key = JSON.stringify([dataset.id, filters.revision ? 0 : dataset.revision, filters]);
  const { found, error, loading, more, retry } = usePages(dataset.id, filters, key);
  const boxes = query.get("boxes") !== "off";
  const colour = useMemo(() => {
    const places = new Map(dataset.classes.map((name, at) => [name, at]));
    return (name: string) => classColour(places.get(name) ?? places.size);
  }, [dataset.classes]);
  const shown = found?.pages.reduce((sum, page) => sum + page.length, 0) ?? 0;
  const filtered = FACETS.some((name) => filters[name]) || Boolean(filters.q);
  return (
    <div class="stack data-images">
      {filters.revision && (
        <Notice>
          {t.grid.ofRevision(Number(filters.revision))}
          <a href={link(["data", dataset.id, "images"])}>{t.grid.newest}</a>
        </Notice>
      )}
      <Filters filters={filters} first={found?.first} classify={dataset.task === "classify"} boxes={boxes} filtered={filtered} />
      <ErrorBox error={error} retry={retry} />
      <div class="row between">
        <p class="muted" role="status">
          {found ? t.grid.found(number(shown), number(found.first.total)) : ""}
        </p>
        <Button size="small" icon="plus" reason={may("annotate") ? null : t.needs("annotate")} onClick={() => (location.hash = link(["data", dataset.id, "add"]))}>
          {t.actions.add}
        </Button>
      </div>
      {!found && loading && <Loading />}
      {found && shown === 0 && (
        <Empty icon="search" title={filtered ? t.grid.nothing : t.grid.emptyTitle}>
          {filtered && <p class="muted">{t.grid.nothingHint}</p>}
        </Empty>
      )}
      {found && shown > 0 && <Grid dataset={dataset} pages={found.pages} count={shown} boxes={boxes} colour={colour} query={filters} />}
      {found?.next && <Sentinel onSeen={more} />}
    </div>
  );
}

/** The pages of a listing, read one after the other. */
function usePages(datasetId: string, filters: Record<string, string>, key: string) {
  const [state, setState] = useState<{ key: string; found?: Found; error?: unknown; loading: boolean }>({ key, loading: true });
  const control = useRef<AbortController>();
  const [turn, setTurn] = useState(0);
  const signedIn = signIns.value;
  const read = (after: string | null) => {
    const own = control.current!;
    const { revision, ...others } = filters;
    const given = Object.fromEntries(Object.entries(others).filter(([, value]) => value));
    const params = {
      path: { dataset_id: datasetId },
      query: { ...given, ...(revision ? { revision: Number(revision) } : {}), ...(after ? { after } : {}), limit: PAGE },
    };
    setState((before) => ({ ...before, key, error: undefined, loading: true }));
    answer(api.GET("/api/datasets/{dataset_id}/images", { params: params as never, signal: own.signal }))
      .then((page: ImageList) => {
        if (own.signal.aborted) return;
        setState((before) => {
          const first = after && before.found ? before.found.first : page;
          const pages = after && before.found ? [...before.found.pages, page.images] : [page.images];
          return { key, found: { pages, first, next: page.next ?? null }, loading: false };
        });
      })
      .catch((error: unknown) => !own.signal.aborted && setState((before) => ({ ...before, error, loading: false })));
  };
  useEffect(() => {
    control.current = new AbortController();
    read(null);
    return () => control.current!.abort();
  }, [key, turn, signedIn]);
  const more = () => {
    if (!state.loading && state.key === key && state.found?.next && !state.error) read(state.found.next);
  };
  const retry = () => setTurn((before) => before + 1);
  return { found: state.found, error: state.error, loading: state.loading, more, retry };
}

interface FiltersProps {
  filters: Record<string, string>;
  first: ImageList | undefined;
  classify: boolean;
  boxes: boolean;
  filtered: boolean;
}

function Filters({ filters, first, classify, boxes, filtered }: FiltersProps) {
  const t = text();
  const g = t.grid;
  const [typed, setTyped] = useState(filters.q ?? "");
  const timer = useRef<ReturnType<typeof setTimeout>>();
  useEffect(() => setTyped(filters.q ?? ""), [filters.q]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const name = (facet: FacetName, value: string): string => {
    if (facet === "split") return t.splits[value as keyof typeof t.splits] ?? value;
    if (facet === "state") return t.states[value as keyof typeof t.states] ?? value;
    if (facet === "author") return t.authors[value as keyof typeof t.authors] ?? value;
    return value;
  };
  return (
    <section class="filters data-filters" aria-label={g.filters}>
      {FACETS.map((facet) => {
        const counts: Record<string, number> = first?.facets?.[facet] ?? {};
        const chosen = filters[facet] ?? "";
        const values = Object.keys(chosen && !(chosen in counts) ? { ...counts, [chosen]: 0 } : counts);
        if (!values.length || (values.length === 1 && !chosen && facet !== "problem")) return null;
        const all = facet === "class" || facet === "problem" ? "" : number(Object.entries(counts).reduce((sum, [value, count]) => sum + (value === "draft" ? 0 : count), 0));
        const options = values.map((value) => [value, `${name(facet, value)} (${number(counts[value] ?? 0)})`] as const);
        return (
          <Select
            key={facet}
            label={g[facet]}
            value={chosen}
            onChange={(value) => setQuery({ [facet]: value })}
            options={[["", all ? g.any(all) : g.any("–").replace(/ ?[(（]–[)）]/, "")], ...options]}
          />
        );
      })}
      <Field label={g.name}>
        {(control) => (
          <input
            {...control}
            type="search"
            value={typed}
            maxLength={200}
            onInput={(event) => {
              const value = event.currentTarget.value;
              setTyped(value);
              clearTimeout(timer.current);
              timer.current = setTimeout(() => setQuery({ q: value }), TYPING);
            }}
          />
        )}
      </Field>
      {!classify && <Switch label={g.boxes} checked={boxes} onChange={(on) => setQuery({ boxes: on ? "" : "off" })} />}
      {filtered && (
        <Button size="small" icon="close" onClick={() => setQuery(Object.fromEntries([...FACETS, "q"].map((facet) => [facet, ""])))}>
          {g.clear}
        </Button>
      )}
    </section>
  );
}

interface GridProps {
  dataset: Dataset;
  pages: ListedImage[][];
  count: number;
  boxes: boolean;
  colour: (name: string) => string;
  query: Record<string, string>;
}

/** The tiles; one of them has the focus, and the arrow keys move it. */
function Grid({ dataset, pages, count, boxes, colour, query }: GridProps) {
  const t = text();
  const list = useRef<HTMLDivElement>(null);
  const [height, setHeight] = useState(0);
  const [focus, setFocus] = useState(0);
  const filters = JSON.stringify({ class: query.class, split: query.split, state: query.state });
  const at = Math.min(focus, count - 1);
  const move = (event: KeyboardEvent) => {
    const columns = columnsOf(list.current!);
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: count - 1 - at };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = at + step;
    if (next < 0 || next >= count) return;
    setFocus(next);
    const chunk = list.current!.children[Math.floor(next / PAGE)]!;
    const tile = chunk.children[next % PAGE]!.querySelector<HTMLElement>("a")!;
    tile.focus({ preventScroll: true });
    tile.scrollIntoView({ block: "nearest" });
  };
  useEffect(() => {
    // the height of a page of tiles that is out of sight, and is not laid out
    const measure = () => {
      const columns = columnsOf(list.current!);
      const tile = list.current!.querySelector(".data-tile");
      if (tile) setHeight(Math.ceil(PAGE / columns) * (tile.clientHeight + GAP));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(list.current!);
    return () => observer.disconnect();
  }, []);
  return (
    <div ref={list} role="list" class="data-grid" aria-label={t.grid.list} onKeyDown={move}>
      {pages.map((images, page) => {
        const start = page * PAGE;
        const focused = at >= start && at < start + images.length ? at - start : null;
        return <Chunk key={page} dataset={dataset} images={images} start={start} boxes={boxes} colour={colour} filters={filters} focused={focused} onFocus={setFocus} height={height} />;
      })}
    </div>
  );
}

/** The number of tiles in a row. */
function columnsOf(list: HTMLElement): number {
  const chunk = list.firstElementChild;
  return chunk ? getComputedStyle(chunk).gridTemplateColumns.split(" ").length : 1;
}

interface ChunkProps {
  dataset: Dataset;
  images: ListedImage[];
  start: number;
  boxes: boolean;
  colour: (name: string) => string;
  /** Class, split and state that are filtered by, as text: equal filters are equal. */
  filters: string;
  /** Place of the tile that has the focus, if it is one of these. */
  focused: number | null;
  onFocus: (at: number) => void;
  /** Pixels of a full page. */
  height: number;
}

/** The tiles of a page. They are drawn again only when they change: there may be thousands of others. */
class Chunk extends Component<ChunkProps> {
  override shouldComponentUpdate(next: ChunkProps) {
    const now = this.props;
    return (["images", "boxes", "colour", "filters", "focused", "height"] as const).some((name) => next[name] !== now[name]) || next.dataset.id !== now.dataset.id || this.language !== language.value;
  }

  private language = language.value;

  render() {
    const { dataset, images, start, boxes, colour, filters, focused, onFocus, height } = this.props;
    this.language = language.value;
    const query = JSON.parse(filters) as Record<string, string>;
    const size = height ? { containIntrinsicBlockSize: `auto ${(height * images.length) / PAGE}px` } : {};
    return (
      <div role="none" class="data-chunk" style={size}>
        {images.map((image, at) => (
          <div key={at} role="listitem" class="data-tile">
            <Tile dataset={dataset} image={image} boxes={boxes} colour={colour} query={query} focusable={at === focused} onFocus={() => onFocus(start + at)} />
          </div>
        ))}
      </div>
    );
  }
}

interface TileProps {
  dataset: Dataset;
  image: ListedImage;
  boxes: boolean;
  colour: (name: string) => string;
  query: Record<string, string>;
  focusable: boolean;
  onFocus: () => void;
}

function Tile({ dataset, image, boxes, colour, query, focusable, onFocus }: TileProps) {
  const t = text();
  const problems = Object.values(image.problems);
  const contents = contentsOf(image);
  const state = image.draft ? "draft" : (image.state as keyof typeof t.states);
  const href = image.content ? link(["annotate", dataset.id, image.content], { class: query.class, split: query.split, state: query.state }) : undefined;
  return (
    <a href={href} role={href ? undefined : "link"} aria-disabled={href ? undefined : true} tabIndex={focusable ? 0 : -1} onFocus={onFocus} title={problems.join("\n") || undefined}>
      <Thumbnail image={image} boxes={boxes} colour={colour} />
      <span class="data-tile-text">
        <span class="clip">{image.name.split("/").at(-1)}</span>
        <span class="clip muted small">
          {[image.split && t.splits[image.split as keyof typeof t.splits], contents || t.states[state]].filter(Boolean).join(" · ")}
        </span>
      </span>
      {problems.length > 0 && (
        <span class="data-mark">
          <Icon name="warn" size={16} />
          <span class="unseen">{problems.join("; ")}</span>
        </span>
      )}
      {image.draft && <span class="data-mark draft">{t.states.draft}</span>}
    </a>
  );
}

/** Calls back when the end of the list comes near. */
function Sentinel({ onSeen }: { onSeen: () => void }) {
  const place = useRef<HTMLDivElement>(null);
  const latest = useRef(onSeen);
  latest.current = onSeen;
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && latest.current(), { rootMargin: "1200px" });
    observer.observe(place.current!);
    // what is still in view after a page has come is asked for again
    const timer = setInterval(() => {
      const box = place.current!.getBoundingClientRect();
      if (box.top < innerHeight + 1200) latest.current();
    }, 400);
    return () => {
      observer.disconnect();
      clearInterval(timer);
    };
  }, []);
  return <div ref={place} class="data-end" />;
}
