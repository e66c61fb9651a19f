import { Button } from "../../components/Button";
import { Dialog } from "../../components/Dialog";
import { words } from "../../components/text";
import { link } from "../../router";
import { said } from "../../said";
import type { Drafts } from "./sync/drafts";
import { text } from "./text";

/** The images whose work the server has not confirmed, and why. */
export function Unsent({ store, onClose }: { store: Drafts["pending"]; onClose: () => void }) {
  const t = text();
  return (
    <Dialog title={t.unsent} onClose={onClose} actions={<Button onClick={onClose}>{words().close}</Button>}>
      <div class="stack">
        <p>{t.unsentHint}</p>
        <ul class="plain stack tight">
          {store.value.map((one) => (
            <li key={`${one.dataset}/${one.content}`}>
              <a href={link(["annotate", one.dataset, one.content])} onClick={onClose}>
                {one.name || one.content.slice(0, 12)}
              </a>
              {one.theirs && <span class="muted"> · {t.changedBy(one.theirs.author)}</span>}
              {one.message && <p class="hint">{said(one.message)}</p>}
            </li>
          ))}
        </ul>
      </div>
    </Dialog>
  );
}
