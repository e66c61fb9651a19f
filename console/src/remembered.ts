/** Small choices that this browser remembers; a browser that keeps nothing forgets them. */
const PREFIX = "visionloop.";

export function remembered(name: string): string | null {
  try {
    return localStorage.getItem(PREFIX + name);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch {
    // Storage is off or full: the choice holds until the page is left.
  }
}
