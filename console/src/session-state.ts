/** Whether the server asked for a token; apart from `session`, because `api` sets it. */
import { signal } from "@preact/signals";

/** Whether the page asks for a token now. */
export const asksForToken = signal(false);

/** A request was refused for want of a valid token. */
export function signedOut(): void {
  asksForToken.value = true;
}
