/** The store of drafts of this page, with the browser's own parts. */
import { effect } from "@preact/signals";
import { base } from "../../../api";
import { remember, remembered } from "../../../remembered";
import { signIns } from "../../../session";
import { signedOut } from "../../../session-state";
import { author, randomName } from "./author";
import { commit, Drafts, type DraftsOptions } from "./drafts.ts";
import { Kept } from "./kept.ts";
import { clock, Outbox } from "./outbox.ts";
import { Server } from "./server.ts";
import type { CommitAnswer, CommitOptions } from "./types.ts";

export type * from "./types.ts";
export { author, setAuthor } from "./author";
export { Away, Refused, type DraftRow, type QueueRow } from "./server.ts";

export const server = new Server({ base, author });

const keys: DraftsOptions["keys"] = { get: remembered, set: remember };
const newKey = () => randomName(16);

function storage(): Storage | null {
  try {
    return localStorage;
  } catch {
    return null; // storage is off
  }
}

let outbox: Outbox | undefined;

/** Work of this page, and of pages before, that the server has not confirmed. */
export function theOutbox(): Outbox {
  if (outbox) return outbox;
  const made = new Outbox(server, new Kept(storage(), randomName(4)), clock, signedOut);
  outbox = made;
  made.recover();
  addEventListener("online", () => made.retry());
  addEventListener("focus", () => made.state.value === "offline" && made.retry()); // after sleep
  addEventListener("pagehide", () => made.keepNow());
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && made.keepNow());
  effect(() => {
    if (signIns.value) made.retry();
  });
  return made;
}

async function decode(url: string): Promise<void> {
  const image = new Image();
  image.src = url;
  await image.decode();
}

/** A store of drafts; `prepare` has an image decoded before it is shown. */
export function openStore(prepare: (url: string) => Promise<unknown> = decode): Drafts {
  return new Drafts({ server, outbox: theOutbox(), prepare, newKey, keys });
}

/** Commit the accepted drafts of a dataset, after all work was sent. */
export async function commitDrafts(dataset: string, options: CommitOptions): Promise<CommitAnswer> {
  await theOutbox().flush();
  return commit({ server, newKey, keys }, dataset, options);
}
