/** The server's sentences in the reader's language: errors, refusals, reasons, notes. */
import { effect, signal } from "@preact/signals";
import { language } from "../text";
import type { translate } from "./zh.ts";

const chinese = signal<typeof translate | null>(null);

// Most readers never need it, so it is not in the page's script. Without it the server is quoted.
effect(() => {
  if (language.value === "zh" && !chinese.peek()) import("./zh.ts").then((found) => (chinese.value = found.translate)).catch(() => undefined);
});

/** What the server said. `code`: that of an error; it is named where the sentence is not known. */
export function said(sentence: string, code = ""): string {
  return (language.value === "zh" && chinese.value?.(sentence, code)) || sentence;
}
