/** The REST API, typed by its OpenAPI document; every address is relative to the page. */
import type { Client } from "openapi-fetch";
import { ApiError, Unreachable } from "./errors";
import type { components, paths } from "./schema";
import { signedOut } from "./session-state";

export { ApiError, Unreachable } from "./errors";

export type Schemas = components["schemas"];

/** The path that the server is reached under, without a slash at its end: "" or "/prefix". */
export const base = new URL(".", location.href.replace(/[#?].*$/, "")).pathname.replace(/\/$/, "");

/** The address of a path of the API, such as "/models". */
export function address(path: string): string {
  return base + path;
}

/** An address that the API answered with, which may be absolute: as the page's origin has it. */
export function local(url: string): string {
  const parsed = new URL(url, location.href);
  return parsed.pathname + parsed.search;
}

/** What an answer's body and status mean as an error; a 401 lets the page ask for a token. */
export function failure(status: number, body: unknown): ApiError {
  if (status === 401) signedOut();
  const fields = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  return new ApiError(status, fields);
}

async function send(request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable(String(error));
  }
}

interface Sent {
  params?: { path?: Record<string, string | number>; query?: Record<string, unknown> };
  body?: unknown;
  signal?: AbortSignal | null;
}

// openapi-fetch checks the types; what it does at run time is this, in a tenth of its size.
function caller(method: string) {
  return async (template: string, { params = {}, body, signal }: Sent = {}) => {
    const path = template.replace(/{(\w+)}/g, (_, name: string) => encodeURIComponent(String(params.path?.[name])));
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(params.query ?? {})) {
      for (const one of [value].flat()) if (one !== undefined && one !== null) query.append(name, String(one));
    }
    const request = new Request(address(path) + (query.size ? `?${query}` : ""), {
      method,
      signal: signal ?? null,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const response = await send(request);
    const text = await response.text();
    let found: unknown = text;
    try {
      found = text ? JSON.parse(text) : undefined;
    } catch {
      // Not JSON: an answer of a proxy in between, or a text.
    }
    return response.ok ? { data: found, response } : { error: found, response };
  };
}

/** The typed client: `await answer(api.GET("/models"))`. */
export const api = {
  GET: caller("GET"),
  POST: caller("POST"),
  DELETE: caller("DELETE"),
} as unknown as Pick<Client<paths>, "GET" | "POST" | "DELETE">;

/** The body of a successful answer. Throws ApiError or Unreachable. */
export async function answer<T>(
  call: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw failure(response.status, error);
  return data as T;
}

export interface SendingOptions {
  method?: "POST" | "PUT";
  /** Called with the share that was sent, 0 to 1. */
  onProgress?: (share: number) => void;
  signal?: AbortSignal;
}

/** Send a form or file and tell the progress, which fetch cannot. Throws as `answer`. */
export function sendForm<T>(path: string, body: FormData | Blob, options: SendingOptions = {}): Promise<T> {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(options.method ?? "POST", address(path));
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "text";
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) options.onProgress?.(event.loaded / event.total);
    };
    request.onload = () => {
      let parsed: unknown = null;
      try {
        parsed = JSON.parse(request.responseText);
      } catch {
        // An answer of a proxy in between; the status says enough.
      }
      if (request.status >= 200 && request.status < 300) done(parsed as T);
      else fail(failure(request.status, parsed));
    };
    request.onerror = () => fail(new Unreachable("The connection was lost."));
    request.onabort = () => fail(new DOMException("Cancelled.", "AbortError"));
    options.signal?.addEventListener("abort", () => request.abort());
    if (options.signal?.aborted) request.abort();
    else request.send(body);
  });
}
