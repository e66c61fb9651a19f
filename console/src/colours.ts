/** The colour of a class: hues a golden angle apart, so that neighbours differ. */

/** CSS colour of the class with this position in its list. */
export function classColour(index: number): string {
  return `oklch(0.78 0.15 ${((index * 137.508) % 360).toFixed(1)})`;
}

/** CSS colour of a class by its name, for lists whose order is not known. */
export function nameColour(name: string): string {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)!) >>> 0;
  return classColour(hash % 360);
}
