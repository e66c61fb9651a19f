import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { Button } from "./Button";
import { words } from "./text";

export interface DialogProps {
  title: string;
  children: ComponentChildren;
  /** Buttons at its end. */
  actions?: ComponentChildren;
  onClose: () => void;
  wide?: boolean;
  /** Whether Escape and the cross close it; default true. */
  closable?: boolean;
}

/** A modal dialog; the browser's own, so that focus stays inside and comes back. */
export function Dialog({ title, children, actions, onClose, wide, closable = true }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    const dialog = element.current!;
    if (!dialog.open) dialog.showModal();
    return () => {
      dialog.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      class={wide ? "dialog wide" : "dialog"}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        if (closable) onClose();
      }}
      onKeyDown={(event) => event.stopPropagation()}
    >
      <div class="dialog-head">
        <h2 id={id}>{title}</h2>
        {closable && <Button kind="quiet" icon="close" label={words().close} onClick={onClose} />}
      </div>
      <div class="dialog-body">{children}</div>
      {actions && <div class="dialog-foot">{actions}</div>}
    </dialog>
  );
}

export interface ConfirmProps {
  title: string;
  children?: ComponentChildren;
  /** The word of the button that does it. */
  act: string;
  danger?: boolean;
  busy?: boolean;
  onConfirm: () => void;
  onClose: () => void;
}

/** A dialog that asks before something is done. */
export function Confirm({ title, children, act, danger, busy, onConfirm, onClose }: ConfirmProps) {
  return (
    <Dialog
      title={title}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{words().cancel}</Button>
          <Button kind={danger ? "danger" : "primary"} busy={busy} onClick={onConfirm}>
            {act}
          </Button>
        </>
      }
    >
      {children}
    </Dialog>
  );
}
