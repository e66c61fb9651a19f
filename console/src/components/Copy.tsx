import { useState } from "preact/hooks";
import { Button } from "./Button";
import { words } from "./text";

/** A button that puts a text on the clipboard. */
export function Copy({ text, label }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  return (
    <Button
      size="small"
      icon={done ? "check" : "copy"}
      onClick={async () => {
        await copy(text);
        setDone(true);
        setTimeout(() => setDone(false), 2000);
      }}
    >
      {done ? words().copied : (label ?? words().copy)}
    </Button>
  );
}

async function copy(text: string): Promise<void> {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Over plain http from another machine there is no clipboard API.
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A command or program to copy. */
export function Code({ text, label }: { text: string; label: string }) {
  return (
    <figure class="code">
      <figcaption>
        <span>{label}</span>
        <Copy text={text} />
      </figcaption>
      <pre tabIndex={0} aria-label={label}>
        {text}
      </pre>
    </figure>
  );
}
