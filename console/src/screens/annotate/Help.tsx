import { Dialog } from "../../components/Dialog";
import { Field, Switch } from "../../components/Field";
import { session } from "../../session";
import { BINDINGS, type Group } from "./engine/keys";
import { author, setAuthor } from "./sync";
import { text } from "./text";

const GROUPS: readonly Group[] = ["image", "objects", "draw", "points", "edit", "suggestions", "view"];

/** All keys, by what they are for. */
export function Help({ singleKeys, onSingleKeys, onClose }: { singleKeys: boolean; onSingleKeys: (on: boolean) => void; onClose: () => void }) {
  const t = text();
  return (
    <Dialog title={t.help} onClose={onClose} wide>
      <div class="stack">
        {!session.value?.signed_in && (
          <Field label={t.name} hint={t.nameHint}>
            {(control) => (
              <input
                {...control}
                type="text"
                maxLength={60}
                value={author()}
                onChange={(event) => event.currentTarget.value.trim() && setAuthor(event.currentTarget.value)}
              />
            )}
          </Field>
        )}
        <Switch label={t.singleKeys} checked={singleKeys} onChange={onSingleKeys} />
        <p class="hint">{t.singleKeysHint}</p>
        <div class="annotate-help">
          {GROUPS.map((group) => (
            <section key={group}>
              <h3>{t.groups[group]}</h3>
              <dl>
                {BINDINGS.filter((binding) => binding.group === group).map((binding) => (
                  <div key={binding.command}>
                    <dt>
                      {binding.keys.map((keys) => (
                        <Keys key={keys} keys={keys} />
                      ))}
                    </dt>
                    <dd>{t.commands[binding.command]}</dd>
                  </div>
                ))}
              </dl>
            </section>
          ))}
        </div>
        <p class="hint">{t.mouse}</p>
      </div>
    </Dialog>
  );
}

/** Keys as they are on the keyboard: "Ctrl+Z", "B B", "1 … 9". */
export function Keys({ keys }: { keys: string }) {
  const t = text();
  const range = keys.includes("…");
  const parts = range ? [keys] : keys.split(" ");
  return (
    <span class="annotate-keys">
      {parts.map((part, at) => (
        <span key={at}>
          {(part === "+" ? [part] : part.split("+")).map((one) => (
            <kbd key={one}>{t.keyNames[one as keyof typeof t.keyNames] ?? one}</kbd>
          ))}
        </span>
      ))}
    </span>
  );
}
