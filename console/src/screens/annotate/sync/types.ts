/** What the annotator and the queue know of drafts. */
import type { Shape } from "../engine/shape.ts";

export type SaveState = "saved" | "saving" | "offline" | "signed-out" | "conflict" | "error";
export type DraftState = "draft" | "accepted" | "skipped";

/** An image with what is to be shown in the annotator. */
export interface Loaded {
  dataset: string;
  content: string;
  name: string;
  width: number;
  height: number;
  imageUrl: string;
  classes: string[];
  keypointNames: string[];
  task: string;
  /** The caller's draft, else what is stored. */
  objects: Shape[];
  suggestions: Shape[];
  /** Another person who has a draft of this image, too. */
  draftOf?: string;
  /** Names the annotations that the objects were drawn on. */
  base: string;
  /** Whether a person, the upload or a draft says what is in the image. */
  annotated: boolean;
}

/** Who has changed what a draft replaces. */
export interface Theirs {
  author: string;
  at: string | null;
  /** The version of a draft; null: it is a stored annotation. */
  etag: string | null;
  /** The base of a stored annotation. */
  base?: string;
}

/** Work on one image that the server has not confirmed yet. */
export interface Pending {
  dataset: string;
  content: string;
  name: string;
  objects: Shape[];
  state: DraftState;
  reason: string;
  base: string;
  /** The newest version of the server's draft that was seen; null: there is none. */
  etag: string | null;
  /** Digests of what this browser has sent or meant to send: nobody else's work. */
  own: string[];
  /** When it was last changed here, milliseconds. */
  changed: number;
  /** Why it is not sent any more until somebody decides. */
  blocked: "conflict" | "refused" | null;
  message: string;
  theirs: Theirs | null;
}

export interface CommitOptions {
  dryRun: boolean;
  mine?: string[];
  confirm?: boolean;
}

export interface Conflict {
  content: string;
  image: string;
  yours: { author: string; at: string | null };
  theirs: { author: string; at: string | null };
}

export interface ImageChanges {
  content: string;
  image: string;
  before: string | null;
  empty: boolean;
  accepted: number;
  moved: number;
  relabelled: number;
  added: number;
  removed: number;
}

/** The part of a commit's answer that the console shows. */
export interface CommitAnswer {
  revision: number;
  data_path: string;
  author: string;
  dry_run: boolean;
  repeated: boolean;
  confirmation_required: boolean;
  committed: string[];
  conflicts: Conflict[];
  new_classes: string[];
  notes: string[];
  removes: { objects: number; of: number; classes: Record<string, number> };
  changes: Omit<ImageChanges, "content" | "image" | "before" | "empty"> & { images: number; changed: ImageChanges[] };
}
