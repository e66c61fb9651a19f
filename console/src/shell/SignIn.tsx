import { useState } from "preact/hooks";
import { Button } from "../components/Button";
import { Dialog } from "../components/Dialog";
import { ErrorBox } from "../components/Feedback";
import { Field } from "../components/Field";
import { signIn } from "../session";
import { asksForToken } from "../session-state";
import { text } from "./text";

/** Asks for a token; what is on the page stays, and goes on after it. */
export function SignIn() {
  const [token, setToken] = useState("");
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const send = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await signIn(token.trim());
      asksForToken.value = false;
    } catch (refused) {
      setError(refused);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={text().tokenNeeded} onClose={() => (asksForToken.value = false)}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (token.trim()) void send();
        }}
      >
        <p>{text().tokenHint}</p>
        <Field label={text().token} hint={text().keptSafe}>
          {(control) => (
            <input {...control} type="password" autocomplete="current-password" autofocus value={token} onInput={(event) => setToken(event.currentTarget.value)} />
          )}
        </Field>
        <ErrorBox error={error} />
        <div class="row end">
          <Button type="submit" kind="primary" busy={busy}>
            {text().signIn}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
