/** Who uses the page, and what they may do: the answer of `GET /session`. */
import { computed, signal } from "@preact/signals";
import { address, ApiError, Unreachable, type Schemas } from "./api";
import { asksForToken } from "./session-state";

export type ScopeName = "use" | "annotate" | "train" | "admin";

export type Session = Schemas["SessionAnswer"];

export const session = signal<Session | null>(null);

/** Whether the caller may do what a scope allows. */
export function may(scope: ScopeName): boolean {
  return session.value?.scopes.includes(scope) ?? false;
}

/** Counts sign-ins: what was refused before is asked for again. */
export const signIns = signal(0);

export const known = computed(() => session.value !== null);

async function request(method: string, body?: unknown): Promise<Session> {
  let response: Response;
  try {
    response = await fetch(address("/session"), {
      method,
      credentials: "same-origin",
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch (error) {
    throw new Unreachable(String(error));
  }
  const text = await response.text();
  const found = text ? JSON.parse(text) : {};
  if (!response.ok) throw new ApiError(response.status, found);
  return found as Session;
}

/** Read the session anew. Throws Unreachable or ApiError. */
export async function readSession(): Promise<void> {
  session.value = await request("GET");
  asksForToken.value = !session.value.scopes.includes("use");
}

/** Exchange a token for a session cookie. Throws ApiError when the token is refused. */
export async function signIn(token: string): Promise<void> {
  await request("POST", { token });
  await readSession();
  signIns.value += 1;
}

/** End the session on the server. */
export async function signOut(): Promise<void> {
  await request("DELETE");
  await readSession();
  signIns.value += 1;
}
