/** The annotator: `#/annotate/DATASET/CONTENT`, and `#/annotate/DATASET` for the next of the queue. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Button } from "../../components/Button";
import { Confirm, Dialog } from "../../components/Dialog";
import { Empty, ErrorBox, Loading } from "../../components/Feedback";
import { notifyError } from "../../components/Toast";
import { Icon, type IconName } from "../../components/Icon";
import { remember, remembered } from "../../remembered";
import { link, route } from "../../router";
import { may } from "../../session";
import { asksForToken } from "../../session-state";
import { percent } from "../../text";
import Commit from "../data/commit";
import { said } from "../../said";
import "./annotate.css";
import type { Editor } from "./engine/editor";
import { pressed, type Pressed } from "./engine/keys";
import { Help } from "./Help";
import { Panel } from "./Panel";
import { sentence } from "./said";
import { Stage, type StageControl } from "./Stage";
import { openStore, type SaveState } from "./sync";
import type { Drafts } from "./sync/drafts";
import { decoded } from "./images";
import { text } from "./text";
import { Unsent } from "./Unsent";
import { useVersion } from "./version";
import { Work, type Opened } from "./work";

const PAN = 40; // CSS pixels an arrow key pans

export default function Annotate() {
  const [, dataset, content] = route.value.path;
  const t = text();
  if (!dataset) {
    return (
      <div class="annotate-alone">
        <h1>{t.title}</h1>
        <Empty icon="data" title={t.noDataset}>
          <p class="muted">{t.noDatasetHint}</p>
          <a class="button primary" href={link(["data"])}>
            {t.toData}
          </a>
        </Empty>
      </div>
    );
  }
  return <Annotator key={dataset} dataset={dataset} content={content} />;
}

function Annotator({ dataset, content }: { dataset: string; content: string | undefined }) {
  const work = useMemo(() => new Work(dataset, openStore(decoded)), []);
  const t = text();
  const [committing, setCommitting] = useState(false);
  useEffect(() => {
    void work.open(content);
  }, [content]);
  useEffect(() => {
    const caught = (event: BeforeUnloadEvent) => {
      if (work.store.state.value !== "saved") event.preventDefault();
    };
    addEventListener("beforeunload", caught);
    return () => {
      removeEventListener("beforeunload", caught);
      void work.store.flush();
    };
  }, []);
  const replaced = work.store.replaced.value;
  useEffect(() => {
    if (replaced) void work.reopen();
  }, [replaced]);
  const opened = work.opened.value;
  const phase = work.phase.value;
  if (opened) return <Screen work={work} opened={opened} />;
  return (
    <div class="annotate-alone">
      <h1>{t.title}</h1>
      {phase === "opening" && <Loading />}
      {phase === "failed" && (
        <>
          <ErrorBox
            error={work.error.value instanceof DOMException ? new Error(t.imageFailed) : work.error.value}
            retry={() => void work.retry()}
          />
          {work.canSkip && may("annotate") && (
            <p>
              <Button onClick={() => void work.skip()}>{t.skip}</Button>
            </p>
          )}
          <a href={link(["data", dataset])}>{t.back}</a>
        </>
      )}
      {phase === "empty" && (
        <Empty icon="check" title={t.empty}>
          <p class="muted">{t.emptyHint}</p>
          <div class="row">
            <Button kind="primary" reason={!may("annotate") && t.mayNot} onClick={() => setCommitting(true)}>
              {t.commit}
            </Button>
            <a class="button normal" href={link(["data", dataset])}>
              {t.toDataset}
            </a>
          </div>
        </Empty>
      )}
      {committing && <Commit dataset={dataset} onClose={() => setCommitting(false)} onChange={() => undefined} />}
    </div>
  );
}

function Screen({ work, opened }: { work: Work; opened: Opened }) {
  const { editor, loaded, image } = opened;
  const t = text();
  const stage = useRef<StageControl | null>(null);
  const search = useRef<HTMLInputElement | null>(null);
  const threshold = useRef<HTMLElement | null>(null);
  const [said, setSaid] = useState("");
  const [zoom, setZoom] = useState(1);
  const [help, setHelp] = useState(false);
  const [drawer, setDrawer] = useState(false);
  const [leaving, setLeaving] = useState(false);
  const [committing, setCommitting] = useState(false);
  const [singleKeys, setSingleKeys] = useState(remembered("annotate.keys") !== "off");

  useEffect(() => {
    const objects = editor.items.filter((item) => !item.suggested).length;
    const hidden = editor.suggestionsShown ? 0 : editor.items.length - objects;
    setSaid(t.said.opened(loaded.name, objects, editor.suggestionCount, hidden));
    const end = editor.onNotice((notice) => {
      setSaid(sentence(notice));
      if (notice.what === "needs-class") {
        setDrawer(true);
        search.current?.focus();
      }
    });
    return () => void end();
  }, [editor]);

  // Keys reach the image at once, without a click.
  useEffect(() => stage.current?.focus(), []);

  const mayAnnotate = may("annotate");
  const reason = !mayAnnotate && t.mayNot;
  const commands = useRef<Commands | null>(null);
  commands.current = {
    work,
    editor,
    stage,
    focusSearch: () => {
      setDrawer(true);
      search.current?.focus();
      search.current?.select();
    },
    focusThreshold: () => {
      setDrawer(true);
      threshold.current?.focus();
    },
    help: () => setHelp(true),
    mayAnnotate,
  };
  const keysOn = useRef(singleKeys);
  keysOn.current = singleKeys;

  useEffect(() => {
    const down = (event: KeyboardEvent) => onKeyDown(event, commands.current!, keysOn.current);
    const up = (event: KeyboardEvent) => {
      if (event.code === "Space") stage.current?.space(false);
    };
    const away = () => stage.current?.space(false); // its release is not seen here
    addEventListener("keydown", down);
    addEventListener("keyup", up);
    addEventListener("blur", away);
    return () => {
      removeEventListener("keydown", down);
      removeEventListener("keyup", up);
      removeEventListener("blur", away);
    };
  }, []);

  const state = work.store.state.value;
  const going = work.going.value;
  const back = link(["data", work.dataset]);
  return (
    <div class="annotate" data-drawer={drawer || undefined}>
      <div class="annotate-bar">
        <a
          class="annotate-back"
          href={back}
          title={t.back}
          onClick={(event) => {
            if (state === "saved" || event.ctrlKey || event.metaKey) return;
            event.preventDefault();
            setLeaving(true);
          }}
        >
          <Icon name="back" />
          <span class="unseen">{t.back}</span>
        </a>
        <h1 class="clip" title={loaded.name}>
          {loaded.name}
        </h1>
        <a class="button quiet normal annotate-file" href={loaded.imageUrl.split("?")[0]} download={loaded.name.split("/").at(-1)} title={t.file}>
          <Icon name="download" />
          <span class="unseen">{t.file}</span>
        </a>
        <Saved store={work.store} />
        <span class="annotate-gap" />
        <History editor={editor} />
        <span class="annotate-zoom">
          <Button kind="quiet" icon="minus" label={t.zoomOut} onClick={() => stage.current?.zoom(-1)} />
          <Button kind="quiet" title={t.fit} onClick={() => stage.current?.fit()}>
            {percent(zoom * (devicePixelRatio || 1), 0)}
          </Button>
          <Button kind="quiet" icon="plus" label={t.zoomIn} onClick={() => stage.current?.zoom(1)} />
        </span>
        <Button kind="quiet" icon="help" label={`${t.help} (?)`} onClick={() => setHelp(true)} />
        <span class="annotate-toggle">
          <Button kind="quiet" icon="menu" label={t.panel} expanded={drawer} onClick={() => setDrawer(!drawer)} />
        </span>
        <span class="annotate-commit">
          <Button kind="quiet" icon="upload" label={t.commit} reason={reason} onClick={() => setCommitting(true)} />
        </span>
        <span class="annotate-decide">
          <Button reason={reason} title={t.skipHint} onClick={() => void work.skip()}>
            {t.skip}
          </Button>
          <Button reason={reason} title={t.nothingHint} onClick={() => void work.nothing()}>
            {t.nothing}
          </Button>
          <Button kind="primary" icon="check" reason={reason} title={t.confirmHint} onClick={() => void work.accept()}>
            {t.confirm}
          </Button>
        </span>
      </div>
      <div class="annotate-middle" aria-busy={going}>
        {going && (
          <p class="annotate-going">
            <span class="spinner" /> {t.opening}
          </p>
        )}
        <Stage editor={editor} image={image} name={loaded.name} control={stage} onZoom={setZoom} />
        <p class="annotate-said" role="status" aria-live="polite">
          {said}
        </p>
        {loaded.draftOf && <p class="annotate-other">{t.otherDraft(loaded.draftOf)}</p>}
        {editor.task === "classify" && <Chosen editor={editor} />}
      </div>
      <aside class="annotate-panel" aria-label={t.panel}>
        <span class="annotate-close">
          <Button kind="quiet" icon="close" label={t.closePanel} onClick={() => setDrawer(false)} />
        </span>
        <Panel
          key={loaded.content}
          editor={editor}
          search={search}
          threshold={threshold}
          toStage={() => stage.current?.focus()}
          reveal={() => stage.current?.reveal()}
        />
      </aside>
      {help && (
        <Help
          singleKeys={singleKeys}
          onSingleKeys={(on) => {
            setSingleKeys(on);
            remember("annotate.keys", on ? null : "off");
          }}
          onClose={() => setHelp(false)}
        />
      )}
      {committing && <Commit dataset={work.dataset} onClose={() => setCommitting(false)} onChange={() => undefined} />}
      {state === "conflict" && <Conflict store={work.store} />}
      {leaving && (
        <Confirm
          title={t.leave}
          act={t.leaveAct}
          onClose={() => setLeaving(false)}
          onConfirm={() => {
            setLeaving(false);
            location.hash = back;
          }}
        >
          <p>{t.leaveHint}</p>
        </Confirm>
      )}
    </div>
  );
}

const STATE_ICONS: Record<SaveState, IconName> = {
  saved: "check",
  saving: "wait",
  offline: "warn",
  "signed-out": "key",
  conflict: "warn",
  error: "error",
};

/** Whether the work is safe, in words. */
function Saved({ store }: { store: Drafts }) {
  const t = text();
  const [shown, setShown] = useState(false);
  const state = store.state.value;
  const full = store.unkept.value;
  const detail = full ? t.storageFull : said(store.detail.value);
  return (
    <span class="annotate-saved" data-state={state} role="status" title={detail || undefined}>
      <Icon name={STATE_ICONS[state]} size={16} />
      <span>{full ? t.storageFull : t.save[state]}</span>
      {state === "error" && (
        <Button size="small" onClick={() => setShown(true)}>
          {t.show}
        </Button>
      )}
      {shown && <Unsent store={store.pending} onClose={() => setShown(false)} />}
      {state === "signed-out" && (
        <Button size="small" onClick={() => (asksForToken.value = true)}>
          {t.signIn}
        </Button>
      )}
    </span>
  );
}

function History({ editor }: { editor: Editor }) {
  useVersion(editor, ["items"]);
  const t = text();
  return (
    <span class="annotate-history">
      <Button kind="quiet" icon="undo" label={`${t.undo} (Ctrl+Z)`} reason={!editor.canUndo && t.noUndo} onClick={() => editor.undo()} />
      <Button kind="quiet" icon="redo" label={`${t.redo} (Ctrl+Shift+Z)`} reason={!editor.canRedo && t.noRedo} onClick={() => editor.redo()} />
    </span>
  );
}

/** The classes of the whole image, over it. */
function Chosen({ editor }: { editor: Editor }) {
  useVersion(editor, ["items", "suggestions"]);
  return (
    <ul class="plain annotate-chosen">
      {editor.visible
        .filter((item) => !item.shape.box && !item.shape.parts.length && !item.shape.keypoints.length)
        .map((item) => (
          <li key={item.key} data-suggested={item.suggested || undefined}>
            {item.shape.label}
            {item.shape.score !== null && ` ${percent(item.shape.score, 0)}`}
          </li>
        ))}
    </ul>
  );
}

function Conflict({ store }: { store: Drafts }) {
  const t = text();
  const [busy, setBusy] = useState(false);
  const take = (how: "mine" | "theirs") => {
    setBusy(true);
    store
      .resolve(how)
      .catch(notifyError)
      .finally(() => setBusy(false));
  };
  return (
    <Dialog
      title={t.conflict}
      closable={false}
      onClose={() => undefined}
      actions={
        <>
          <Button busy={busy} onClick={() => take("theirs")}>
            {t.theirs}
          </Button>
          <Button kind="primary" busy={busy} onClick={() => take("mine")}>
            {t.mine}
          </Button>
        </>
      }
    >
      <p>{t.conflictHint}</p>
      {store.detail.value && <p class="muted">{said(store.detail.value)}</p>}
    </Dialog>
  );
}

interface Commands {
  work: Work;
  editor: Editor;
  stage: { current: StageControl | null };
  focusSearch: () => void;
  focusThreshold: () => void;
  help: () => void;
  mayAnnotate: boolean;
}

function onKeyDown(event: KeyboardEvent, commands: Commands, singleKeys: boolean): void {
  if (event.defaultPrevented || commands.work.going.value) return;
  const { editor, stage } = commands;
  const target = event.target instanceof HTMLElement ? event.target : document.body;
  if (target.closest("dialog")) return;
  const input = target instanceof HTMLInputElement ? target.type : "";
  const isText = target instanceof HTMLTextAreaElement || (input !== "" && !["range", "checkbox", "radio"].includes(input));
  if (isText) return;
  const isControl = target.closest("button, a, select, summary") !== null || input !== "";
  const isList = target.dataset.list !== undefined;
  if (isControl && (event.key === "Enter" || event.key === " ")) return;
  if ((input === "range" || target instanceof HTMLSelectElement) && /^(Arrow|Home|End|Page)/.test(event.key)) return;
  if (target instanceof HTMLSelectElement && event.key.length === 1 && !event.ctrlKey) return;
  if (isList && (event.key === "ArrowDown" || event.key === "ArrowUp") && !event.altKey) {
    event.preventDefault();
    editor.step(event.key === "ArrowDown" ? 1 : -1);
    stage.current?.reveal();
    return;
  }
  if (event.code === "Space") {
    event.preventDefault();
    if (event.repeat) return;
    if (editor.draft?.kind === "polygon" && editor.draft.byKeys) editor.insert();
    else stage.current?.space(true);
    return;
  }
  const found = pressed(event);
  if (!found || (found.single && !singleKeys)) return;
  event.preventDefault();
  if (found.command === "cancel" && target !== document.body && !target.classList.contains("annotate-stage") && !editor.isDragging) {
    stage.current?.focus(); // first out of the panel
    return;
  }
  run(found, event.repeat, commands);
}

// What a held key does again and again; of the others a repetition is a slip.
const REPEATED = new Set(["next", "previous", "point", "point-back", "nudge", "resize", "undo", "redo", "zoom-in", "zoom-out"]);

function run({ command, dx, dy, index }: Pressed, repeat: boolean, commands: Commands): void {
  const { work, editor, stage } = commands;
  const view = stage.current;
  if (repeat && !REPEATED.has(command)) return;
  switch (command) {
    case "next":
    case "previous":
      editor.step(command === "next" ? 1 : -1);
      return view?.reveal();
    case "point":
      return editor.nextPoint(1);
    case "point-back":
      return editor.nextPoint(-1);
    case "insert":
      return editor.insert();
    case "box":
      return editor.boxKey();
    case "polygon":
      return editor.polygonKey();
    case "keypoint":
      return editor.keypointKey();
    case "visibility":
      return editor.toggleVisibility();
    case "nudge":
      if (!editor.nudge(dx, dy, repeat)) view?.pan(-dx * PAN, -dy * PAN);
      return;
    case "resize":
      editor.resize(dx, dy, repeat);
      return;
    case "delete":
      return editor.delete();
    case "class":
    case "class-more": {
      const label = editor.classes[index];
      if (label === undefined) return;
      if (command === "class-more" && editor.task === "classify") editor.chooseClass(label, true);
      else editor.setClass(label);
      return;
    }
    case "class-search":
      return commands.focusSearch();
    case "undo":
      return editor.undo();
    case "redo":
      return editor.redo();
    case "copy":
      return editor.copy(editor);
    case "paste":
      return editor.paste(editor);
    case "paste-previous":
      return work.pastePrevious();
    case "duplicate":
      return editor.duplicate();
    case "select-all":
      return editor.selectAll();
    case "accept":
      return editor.acceptSelected();
    case "accept-shown":
      return editor.acceptShown();
    case "confirm":
      if (editor.isDrawing) return editor.closePolygon();
      if (commands.mayAnnotate) void work.accept();
      return;
    case "skip":
      if (commands.mayAnnotate) void work.skip();
      return;
    case "nothing-here":
      if (commands.mayAnnotate) void work.nothing();
      return;
    case "suggestions":
      return editor.showSuggestions(!editor.suggestionsShown);
    case "threshold":
      return commands.focusThreshold();
    case "fit":
      return view?.fit();
    case "actual":
      return view?.actual();
    case "zoom-in":
      return view?.zoom(1);
    case "zoom-out":
      return view?.zoom(-1);
    case "zoom-object":
      return view?.reveal(true);
    case "save":
      void work.store.flush();
      return;
    case "cancel":
      return editor.cancel();
    case "help":
      return commands.help();
  }
}
