/** The name under which this browser's drafts are kept, where no token says one. */
import { remember, remembered } from "../../../remembered";

const NAME = "annotator";
let unremembered = "";

/** The annotator's name; until one is chosen, a name of this browser. */
export function author(): string {
  const known = remembered(NAME);
  if (known) return known;
  unremembered ||= `browser-${randomName(3)}`;
  remember(NAME, unremembered);
  return unremembered;
}

/** Choose another name: drafts stay under the name that they were drawn with. */
export function setAuthor(name: string): void {
  remember(NAME, name.trim().slice(0, 60));
}

export function randomName(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
