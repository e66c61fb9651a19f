/** Images ready to be shown: the next one is decoded before it is asked for. */
import { failure, Unreachable } from "../../api";

const MOST = 6;
const ready = new Map<string, Promise<HTMLImageElement>>();

/** A decoded image. Throws if it cannot be read. */
export function decoded(url: string): Promise<HTMLImageElement> {
  let found = ready.get(url);
  if (found) ready.delete(url);
  else found = load(url);
  ready.set(url, found); // the newest one is the last
  found.catch(() => ready.delete(url));
  const oldest = ready.keys().next().value;
  if (ready.size > MOST && oldest !== undefined) ready.delete(oldest);
  return found;
}

async function load(url: string): Promise<HTMLImageElement> {
  const image = new Image();
  image.alt = "";
  image.draggable = false;
  image.src = url;
  await image.decode().catch(async (error: unknown) => {
    const refused = await fetch(url).catch((lost: unknown) => Promise.reject(new Unreachable(String(lost)))); // an image element does not tell why
    throw refused.ok ? error : failure(refused.status, await refused.json().catch(() => null));
  });
  return image;
}
