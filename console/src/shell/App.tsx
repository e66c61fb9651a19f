import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Empty, ErrorBox, Loading, Notice } from "../components/Feedback";
import { Toasts } from "../components/Toast";
import { connected } from "../events";
import { link, route, screen } from "../router";
import Annotate from "../screens/annotate";
import Data from "../screens/data";
import Loop from "../screens/loop";
import Models from "../screens/models";
import Operate from "../screens/operate";
import Train from "../screens/train";
import Try from "../screens/try";
import { known, may, session } from "../session";
import { asksForToken } from "../session-state";
import { Header } from "./Header";
import { SignIn } from "./SignIn";
import { text } from "./text";

const SCREENS: Record<string, ComponentType> = {
  try: Try,
  models: Models,
  train: Train,
  data: Data,
  annotate: Annotate,
  loop: Loop,
  operate: Operate,
};

/** Shows the error of a screen in its place; the others go on. */
class Boundary extends Component<{ children: ComponentChildren; at: string }, { error: unknown }> {
  override state = { error: undefined as unknown };

  static override getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override componentDidUpdate(before: { at: string }) {
    if (before.at !== this.props.at && this.state.error) this.setState({ error: undefined });
  }

  render() {
    return this.state.error ? <ErrorBox error={this.state.error} /> : this.props.children;
  }
}

function NotFound() {
  return (
    <Empty icon="search" title={text().notFound}>
      <a href={link(["try"])}>{text().home}</a>
    </Empty>
  );
}

export function App({ startFailed, retry }: { startFailed: unknown; retry: () => void }) {
  const name = screen.value || "try";
  const Screen = SCREENS[name] ?? NotFound;
  const t = text();
  useEffect(() => {
    const shown = name === "annotate" ? "data" : name;
    const title = shown in t.screens ? t.screens[shown as keyof typeof t.screens] : t.notFound;
    document.title = `${title} · VisionLoop`;
  }, [name, t]);
  useEffect(() => {
    scrollTo(0, 0);
  }, [route.value.path.join("/")]);
  const usable = may("use");
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault(); // the hash is the route
          document.getElementById("main")?.focus();
        }}
      >
        {t.skip}
      </a>
      <Header />
      <main id="main" tabIndex={-1} class={`screen screen-${name}`}>
        {usable && !connected.value && <Offline />}
        {startFailed && !known.value ? (
          <ErrorBox error={startFailed} retry={retry} />
        ) : !session.value ? (
          <Loading />
        ) : usable ? (
          <Boundary at={route.value.path.join("/")}>
            <Screen />
          </Boundary>
        ) : (
          <Empty icon="key" title={t.tokenNeeded}>
            <p class="muted">{t.tokenHint}</p>
            <button type="button" class="button primary normal" onClick={() => (asksForToken.value = true)}>
              {t.signIn}
            </button>
          </Empty>
        )}
      </main>
      <Toasts />
      {asksForToken.value && <SignIn />}
    </>
  );
}

/** Said only when it lasts: a stream that is opened again at once is no news. */
function Offline() {
  const [lasts, setLasts] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLasts(true), 4000);
    return () => clearTimeout(timer);
  }, []);
  return lasts ? <Notice kind="warn">{text().offline}</Notice> : null;
}
