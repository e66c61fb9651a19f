import { useState } from "preact/hooks";
import { ErrorBox, Loading } from "../../components/Feedback";
import { ImageStage, type StageObject } from "../../components/ImageStage";
import { useLoad } from "../../load";
import { link } from "../../router";
import { number } from "../../text";
import { above, byClass, drawable } from "./found";
import { predict, type Prediction, type Tried } from "./predict";
import { text } from "./text";

const MOST_ROWS = 100;

export interface ResultProps {
  image: { number: number; file: File; url: string };
  model: string;
  /** "A" or "B"; empty: there is one model only. */
  side: string;
  threshold: number;
  colour: (label: string) => string;
  /** The class that is shown alone. */
  only: string | null;
  /** The class that was clicked. */
  kept: string | null;
  onPoint: (label: string | null) => void;
  onKeep: (label: string) => void;
}

/** What one model finds. */
export function Result(props: ResultProps) {
  const { image, model, side, threshold } = props;
  const [broken, setBroken] = useState(false);
  const drawn = broken ? threshold : null;
  const found = useLoad((signal) => predict(image.file, model, drawn, signal), [image.number, model, drawn]);
  const t = text();
  return (
    <section class="try-result" aria-label={side ? t.side(side) : model}>
      <h2 class="clip" title={model}>
        {side && <span class="try-side">{side}</span>}
        <a href={link(["models", model])}>{model}</a>
      </h2>
      <ErrorBox error={found.error} retry={found.reload} />
      {found.data ? <Answered {...props} tried={found.data} onBroken={() => setBroken(true)} /> : found.loading && <Waiting url={image.url} />}
    </section>
  );
}

function Waiting({ url }: { url: string }) {
  return (
    <>
      <div class="stage">
        <img class="try-waiting" src={url} alt="" />
      </div>
      <Loading />
    </>
  );
}

function Answered({ image, side, threshold, colour, only, kept, onPoint, onKeep, tried, onBroken }: ResultProps & { tried: Tried; onBroken: () => void }) {
  const t = text();
  const [active, setActive] = useState<number | null>(null);
  const { answer } = tried;
  const all = answer.predictions;
  const shown = above(all, threshold);
  const classes = byClass(shown);
  const alone = only !== null && classes.some((one) => one.label === only) ? only : null;
  const listed = alone === null ? shown : shown.filter((one) => one.label === alone);
  const objects = listed.map((one) => drawable(one, colour(one.label)));
  const places = objects.every(Boolean);
  return (
    <div class="try-answer">
      <ImageStage
        src={answer.image_result ?? image.url}
        alt={t.alt(image.file.name || "")}
        width={answer.image.width}
        height={answer.image.height}
        objects={places && !answer.image_result ? (objects as StageObject[]) : []}
        active={active}
        onActive={setActive}
        onBroken={onBroken}
      />
      <div class="try-facts">
        <div class="row between">
          <p class="try-count" role="status">
            {t.objects(shown.length, all.length)}
          </p>
          <Latency tried={tried} />
        </div>
        {answer.image_result && <p class="muted">{t.drawn}</p>}
        {!shown.length && <p class="muted">{all.length ? t.nothing : t.nothingAtAll}</p>}
        {places && classes.length > 0 && (
            <ul class="plain try-classes" aria-label={t.classes} title={t.classesHint}>
              {classes.map((one) => (
                <li key={one.label}>
                  <button
                    type="button"
                    class="button small"
                    aria-pressed={kept === one.label}
                    onClick={() => onKeep(one.label)}
                    onMouseEnter={() => onPoint(one.label)}
                    onMouseLeave={() => onPoint(null)}
                    onFocus={() => onPoint(one.label)}
                    onBlur={() => onPoint(null)}
                  >
                    <Swatch colour={colour(one.label)} />
                    <span>{one.label}</span>
                    <span class="count">{one.count}</span>
                  </button>
                </li>
              ))}
            </ul>
        )}
        {shown.length > 0 && (
          <ol class="plain try-objects" tabIndex={0} aria-label={t.list(side || answer.model_id)}>
            {listed.slice(0, MOST_ROWS).map((one, at) => (
              <li key={at} class={at === active ? "active" : ""} onMouseEnter={() => setActive(at)} onMouseLeave={() => setActive(null)}>
                <Row one={one} colour={colour(one.label)} />
              </li>
            ))}
          </ol>
        )}
      </div>
    </div>
  );
}

function Row({ one, colour }: { one: Prediction; colour: string }) {
  return (
    <>
      <Swatch colour={colour} />
      <span class="grow clip">{one.label}</span>
      <span class="try-bar" aria-hidden="true">
        <span style={{ width: `${(one.confidence * 100).toFixed(1)}%` }} />
      </span>
      <span class="number">{one.confidence.toFixed(2)}</span>
    </>
  );
}

function Swatch({ colour }: { colour: string }) {
  return <span class="try-swatch" aria-hidden="true" style={{ background: colour }} />;
}

function Latency({ tried }: { tried: Tried }) {
  const t = text();
  const model = tried.answer.inference_time;
  const rest = Math.max(0, tried.total - model);
  const share = tried.total > 0 ? Math.min(1, model / tried.total) : 0;
  const digits = (ms: number) => number(ms, ms < 10 ? 1 : 0);
  return (
    <div class="try-latency">
      <span class="try-split" aria-hidden="true">
        <span style={{ width: `${(share * 100).toFixed(1)}%` }} />
      </span>
      <span class="small">
        {t.network} <b>{digits(model)}</b> + <span title={t.restHint}>{t.rest}</span> <b>{digits(rest)}</b> = {t.total(digits(tried.total))}
      </span>
    </div>
  );
}
