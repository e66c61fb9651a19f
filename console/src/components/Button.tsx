import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";
import { Icon, type IconName } from "./Icon";

export interface ButtonProps {
  children?: ComponentChildren;
  icon?: IconName;
  kind?: "primary" | "plain" | "quiet" | "danger";
  size?: "normal" | "small";
  /** Why it cannot be used now; it stays focusable, and tells the reason. */
  reason?: string | null | false;
  busy?: boolean;
  /** Name for screen readers, where there is no text. */
  label?: string;
  onClick?: (event: JSX.TargetedMouseEvent<HTMLButtonElement>) => void;
  type?: "button" | "submit";
  pressed?: boolean;
  expanded?: boolean;
  autofocus?: boolean;
  class?: string;
  title?: string;
}

/** A button; one that cannot be used says why. */
export function Button(props: ButtonProps) {
  const id = useId();
  const { reason, busy } = props;
  const off = Boolean(reason) || busy;
  const kind = props.kind ?? "plain";
  return (
    <>
      <button
        type={props.type ?? "button"}
        class={`button ${kind} ${props.size ?? "normal"} ${props.children ? "" : "alone"} ${props.class ?? ""}`}
        aria-label={props.label}
        aria-disabled={off || undefined}
        aria-busy={busy || undefined}
        aria-pressed={props.pressed}
        aria-expanded={props.expanded}
        aria-describedby={reason ? id : undefined}
        title={reason || props.title || props.label}
        autofocus={props.autofocus}
        onClick={(event) => {
          if (off) {
            event.preventDefault();
            return;
          }
          props.onClick?.(event);
        }}
      >
        {busy ? <span class="spinner" /> : props.icon && <Icon name={props.icon} />}
        {props.children && <span>{props.children}</span>}
      </button>
      {reason && (
        <span id={id} class="unseen">
          {reason}
        </span>
      )}
    </>
  );
}
