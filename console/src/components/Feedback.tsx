/** What a screen shows while it waits, when there is nothing, and when something failed. */
import type { ComponentChildren } from "preact";
import { ApiError, Unreachable } from "../api";
import { said } from "../said";
import { Button } from "./Button";
import { Icon, type IconName } from "./Icon";
import { words } from "./text";

/** The message of an error for people. */
export function messageOf(error: unknown): string {
  if (error instanceof Unreachable) return words().unreachable;
  if (error instanceof ApiError) return said(error.message, error.code);
  return `${words().unexpected} (${error instanceof Error ? error.message : String(error)})`;
}

/** An error with its remedy, which the API's messages carry. */
export function ErrorBox({ error, retry }: { error: unknown; retry?: () => void }) {
  if (!error) return null;
  return (
    <div class="notice error" role="alert">
      <Icon name="error" />
      <div>
        <p>{messageOf(error)}</p>
        {error instanceof ApiError && error.requestId && <p class="muted small">{words().reference(error.requestId)}</p>}
      </div>
      {retry && (
        <Button size="small" onClick={retry}>
          {words().retry}
        </Button>
      )}
    </div>
  );
}

/** A sentence that matters, with an icon: never colour alone. */
export function Notice({ kind = "info", children }: { kind?: "info" | "good" | "warn" | "error"; children: ComponentChildren }) {
  const icons: Record<typeof kind, IconName> = { info: "info", good: "check", warn: "warn", error: "error" };
  return (
    <div class={`notice ${kind}`}>
      <Icon name={icons[kind]} />
      <div>{children}</div>
    </div>
  );
}

/** An empty list: what it is for, and the next step. */
export function Empty({ icon, title, children }: { icon: IconName; title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={icon} size={32} />
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}

export function Loading() {
  return (
    <p class="loading" role="status">
      <span class="spinner" /> {words().loading}
    </p>
  );
}

/** A share from 0 to 1 as a bar; without a value it only says that work goes on. */
export function Progress({ value, label }: { value?: number | null; label: string }) {
  return <progress class="progress" max={1} value={value ?? undefined} aria-label={label} />;
}

export type StateName = "queued" | "running" | "stopping" | "stopped" | "completed" | "failed";

const STATE_ICONS: Record<StateName, IconName> = {
  queued: "wait",
  running: "play",
  stopping: "stop",
  stopped: "stop",
  completed: "check",
  failed: "error",
};

/** A job's state, by icon and word. */
export function JobState({ state }: { state: StateName }) {
  return (
    <span class={`state ${state}`}>
      <Icon name={STATE_ICONS[state]} size={14} />
      {words().states[state]}
    </span>
  );
}

/** A short mark beside a name, such as "promoted". */
export function Badge({ kind = "plain", children }: { kind?: "plain" | "good" | "warn" | "bad" | "accent"; children: ComponentChildren }) {
  return <span class={`badge ${kind}`}>{children}</span>;
}
