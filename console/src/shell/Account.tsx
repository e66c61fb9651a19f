import { useState } from "preact/hooks";
import { address } from "../api";
import { Button } from "../components/Button";
import { Dialog } from "../components/Dialog";
import { notifyError } from "../components/Toast";
import { session, signOut } from "../session";
import { asksForToken } from "../session-state";
import { text } from "./text";

/** Who is signed in, and what they may do. */
export function Account() {
  const [shown, setShown] = useState(false);
  const t = text();
  const found = session.value;
  return (
    <>
      <Button kind="quiet" icon="key" label={t.account} onClick={() => setShown(true)} />
      {shown && (
        <Dialog title={t.account} onClose={() => setShown(false)}>
          <div class="stack">
            <p>{found?.signed_in ? t.signedIn(found.who) : found?.token_needed ? t.tokenNeeded : t.open}</p>
            <p class="muted">{t.scope((found?.scopes ?? []).map((scope) => t.scopes[scope]).join(", ") || "–")}</p>
            {found?.version && (
              <p class="muted">
                {t.version(found.version)} · <a href={address("/docs")}>{t.api}</a>
              </p>
            )}
            <div class="row end">
              {found?.signed_in ? (
                <Button
                  onClick={() => {
                    setShown(false);
                    signOut().catch(notifyError);
                  }}
                >
                  {t.signOut}
                </Button>
              ) : (
                <Button
                  reason={!found?.can_sign_in && t.noTokens}
                  onClick={() => {
                    setShown(false);
                    asksForToken.value = true;
                  }}
                >
                  {t.signIn}
                </Button>
              )}
            </div>
          </div>
        </Dialog>
      )}
    </>
  );
}
