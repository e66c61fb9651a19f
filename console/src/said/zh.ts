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
const TRIES = 300; // look-ups for one text: sentences in sentences multiply, and names in them are other people's
const END = /[.!?] [A-Z'{]/; // of a sentence, with another one behind it

interface Known {
  /** What is the same each time: before, between and behind the values. */
  parts: string[];
  longest: string;
  /** Else it is a part of a sentence, such as "{} objects". */
  isWhole: boolean;
  chinese: string;
}

const longer = (a: string, b: string) => (b.length > a.length ? b : a);
const literal = (english: string) => english.replaceAll("{}", "").length;

const sentences: Known[] = Object.entries(catalogue.sentences)
  .sort(([a], [b]) => literal(b) - literal(a)) // the more exact one first
  .map(([english, chinese]) => {
    const parts = english.split("{}");
    return { parts, longest: parts.reduce(longer), isWhole: /([.!?:)]|\{\})$/.test(english), chinese };
  });
const kept = new Map<string, string>();
let triesLeft = 0;

/** A sentence, or several, in Chinese; what is not known stays as it is, after what the code says. */
export function translate(sentence: string, code = ""): string {
  if (sentence.length > LONGEST) return sentence;
  const key = `${code} ${sentence}`;
  const before = kept.get(key);
  if (before !== undefined) return before;
  triesLeft = TRIES;
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
  if (triesLeft <= 0) return null;
  triesLeft -= 1;
  for (const { parts, longest, isWhole, chinese } of sentences) {
    const values = sentence.includes(longest) && valuesOf(sentence, parts);
    if (!values || !(isWhole || values.every((one) => /^\d/.test(one)))) continue;
    if (!loosely && values.some((one) => END.test(one))) continue;
    return chinese.replace(/\{(\d+)\}/g, (_, number: string) => {
      const found = values[Number(number)]!;
      return parts[Number(number)]!.endsWith("'") ? found : value(found); // a name in quotes stays as it is
    });
  }
  return null;
}

/** The shortest values that stand between the parts, from left to right. Its time is linear, as that of a regular expression is not. */
function valuesOf(sentence: string, parts: string[]): string[] | null {
  const last = parts.at(-1)!;
  const end = sentence.length - last.length;
  if (parts.length === 1) return sentence === last ? [] : null;
  if (!sentence.startsWith(parts[0]!) || !sentence.endsWith(last)) return null;
  const values: string[] = [];
  let from = parts[0]!.length;
  for (const part of parts.slice(1, -1)) {
    const isEnd = values.length === parts.length - 3 && !last && /[.!?]$/.test(part);
    const at = isEnd ? endOf(sentence, part, from) : sentence.indexOf(part, from);
    if (at < 0) return null;
    values.push(sentence.slice(from, at));
    from = at + part.length;
  }
  return from <= end ? [...values, sentence.slice(from, end)] : null;
}

/** Where a sentence ends in these words, with nothing or another sentence behind it. */
function endOf(text: string, words: string, from: number): number {
  const at = text.indexOf(`${words} `, from);
  const last = text.length - words.length;
  return at < 0 && last >= from && text.endsWith(words) ? last : at;
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
