/**
 * The server's sentences in Chinese.
 *
 * The server speaks English, on the wire and in what it stores, such as the reason of a job's
 * failure. A sentence is known by its words, with `{}` for what differs from one time to another:
 * zh.json has them as the server's source has, and a test of the server holds the two together.
 */
import catalogue from "./zh.json" with { type: "json" };

const LONGEST = 4000; // characters of a sentence that is looked up
const MOST = 500; // translations that are kept
const END = /[.!?] [A-Z'{]/; // of a sentence, with another one behind it

interface Known {
  pattern: RegExp;
  /** The longest part without a value. */
  part: string;
  chinese: string;
}

const longer = (a: string, b: string) => (b.length > a.length ? b : a);
const literal = (english: string) => english.replaceAll("{}", "").length;

const sentences: Known[] = Object.entries(catalogue.sentences)
  .sort(([a], [b]) => literal(b) - literal(a)) // the more exact one first
  .map(([english, chinese]) => ({
    pattern: new RegExp(`^${english.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&").replaceAll("\\{\\}", "([^]*?)")}$`),
    part: english.split("{}").reduce(longer),
    chinese,
  }));
const kept = new Map<string, string>();

/** A sentence, or several, in Chinese; what is not known stays as it is, after what the code says. */
export function translate(sentence: string, code = ""): string {
  if (sentence.length > LONGEST) return sentence;
  const key = `${code} ${sentence}`;
  const before = kept.get(key);
  if (before !== undefined) return before;
  const lines = sentence.split("\n").map((line) => one(line) ?? named(line));
  const title = (catalogue.codes as Record<string, string>)[code];
  const isKnown = lines.some((line) => line !== null);
  const found = isKnown ? lines.map((line, at) => line ?? sentence.split("\n")[at]).join("\n") : title ? `${title}：${sentence}` : sentence;
  if (kept.size >= MOST) kept.clear();
  kept.set(key, found);
  return found;
}

/** A line of text. A value that holds the end of a sentence is the last resort. */
function one(text: string): string | null {
  return known(text) ?? several(text, true) ?? known(text, true) ?? several(text);
}

function known(sentence: string, loosely = false): string | null {
  for (const { pattern, part, chinese } of sentences) {
    const values = sentence.includes(part) && pattern.exec(sentence);
    if (values && (loosely || !values.slice(1).some((value) => END.test(value)))) return chinese.replace(/\{(\d+)\}/g, (_, at: string) => value(values[Number(at) + 1]!));
  }
  return null;
}

/** A value may be a sentence itself, such as a reason or a remedy. */
function value(text: string): string {
  const bare = text.trim();
  return (bare && one(bare)) || text;
}

/** Sentences one after the other, if one of them is known, or all; the longest run of them first. */
function several(text: string, all = false): string | null {
  const parts = text.split(/(?<=[.!?…]) (?=\S)/);
  let found = "";
  let any = false;
  for (let from = 0; from < parts.length; ) {
    let to = parts.length;
    let chinese: string | null = null;
    for (; to > from && chinese === null; to -= 1) if (to - from < parts.length) chinese = known(parts.slice(from, to).join(" "));
    if (all && chinese === null) return null;
    any ||= chinese !== null;
    found += chinese ?? ` ${parts[from]} `;
    from = chinese === null ? from + 1 : to + 1;
  }
  return any ? found.trim() : null;
}

/** "street.jpg: a sentence". */
function named(text: string): string | null {
  const [name, rest] = text.split(/: (.*)/s);
  const chinese = rest && one(rest);
  return chinese ? `${name}：${chinese}` : null;
}
