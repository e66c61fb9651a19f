/** Values that a screen reads from the server. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { on, type EventKind } from "./events";
import { signIns } from "./session";

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  loading: boolean;
  /** Read it again; the old value stays until the new one is there. */
  reload: () => void;
  /** Put a value in its place, such as the answer of a change. */
  set: (value: T) => void;
}

/** The value of `read`, read when `inputs` change, after a sign-in and at events of `kinds`. */
export function useLoad<T>(read: (signal: AbortSignal) => Promise<T>, inputs: readonly unknown[], kinds: EventKind[] = []): Loaded<T> {
  const [state, setState] = useState<{ data: T | undefined; error: unknown; loading: boolean }>({ data: undefined, error: undefined, loading: true });
  const [turn, setTurn] = useState(0);
  const reader = useRef(read);
  reader.current = read;
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  const set = useCallback((data: T) => setState({ data, error: undefined, loading: false }), []);
  const signedIn = signIns.value;
  const key = JSON.stringify(inputs);
  const previous = useRef(key);
  useEffect(() => {
    const control = new AbortController();
    const changed = previous.current !== key;
    previous.current = key;
    setState((before) => ({ data: changed ? undefined : before.data, error: undefined, loading: true }));
    reader
      .current(control.signal)
      .then((data) => !control.signal.aborted && setState({ data, error: undefined, loading: false }))
      .catch((error) => !control.signal.aborted && setState((before) => ({ data: before.data, error, loading: false })));
    return () => control.abort();
  }, [key, turn, signedIn]);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(reload, 300); // several events at once are one reading
    };
    const ends = [...kinds, ...(kinds.length ? (["reset"] as const) : [])].map((kind) => on(kind, soon));
    return () => {
      clearTimeout(timer);
      for (const end of ends) end();
    };
  }, [kinds.join()]);
  return { ...state, reload, set };
}

/** Call `act` every `ms` milliseconds while the page is seen. */
export function useInterval(act: () => void, ms: number): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && latest.current(), ms);
    return () => clearInterval(timer);
  }, [ms]);
}
