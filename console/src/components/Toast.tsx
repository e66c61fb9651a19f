/** Short messages that pass: what was done, or why it was not. */
import { signal } from "@preact/signals";
import { Button } from "./Button";
import { messageOf } from "./Feedback";
import { Icon } from "./Icon";
import { words } from "./text";

interface Message {
  id: number;
  text: string;
  kind: "good" | "error";
}

const messages = signal<Message[]>([]);
let last = 0;

function show(text: string, kind: Message["kind"], ms: number): void {
  const message = { id: ++last, text, kind };
  messages.value = [...messages.value.filter((one) => one.text !== text), message].slice(-3);
  setTimeout(() => dismiss(message.id), ms);
}

function dismiss(id: number): void {
  messages.value = messages.value.filter((one) => one.id !== id);
}

/** Say that something was done. */
export function notify(text: string): void {
  show(text, "good", 5000);
}

/** Say why something failed. It stays longer, for its remedy is to be read. */
export function notifyError(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  show(messageOf(error), "error", 20000);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {messages.value.map((message) => (
        <div key={message.id} class={`toast ${message.kind}`}>
          <Icon name={message.kind === "good" ? "check" : "error"} />
          <span>{message.text}</span>
          <Button kind="quiet" size="small" icon="close" label={words().close} onClick={() => dismiss(message.id)} />
        </div>
      ))}
    </div>
  );
}
