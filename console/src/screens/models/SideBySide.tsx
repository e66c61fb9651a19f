import { address, answer, api, local, type Schemas } from "../../api";
import { Dialog } from "../../components/Dialog";
import { ErrorBox, Loading, Notice } from "../../components/Feedback";
import { ImageStage, type StageObject } from "../../components/ImageStage";
import { DECODING } from "../../decoding";
import { useLoad } from "../../load";
import { above, colours, drawable } from "../try/found";
import { predict, type Tried } from "../try/predict";
import { text } from "./text";
import { pathOf, readReport, type Report } from "./VersionPage";

type Comparison = Schemas["Comparison"];
type Changed = Schemas["ChangedImage"];
type Annotated = Schemas["ImageAnnotations"];
type Colour = (label: string) => string;

/** An uploaded image with its truth, and what both versions answer now. */
interface Live {
  image: Annotated;
  a: Tried;
  b: Tried;
}

/** What there is to show: the image itself, or else the pictures that the evaluations kept. */
interface Found {
  live: Live | null;
  reports: readonly [Report | null, Report | null] | null;
}

interface SideBySideProps {
  image: Changed;
  compared: Comparison;
  a: string;
  b: string;
  onClose: () => void;
}

/** Truth beside the prediction of each version. */
export function SideBySide({ image, compared, a, b, onClose }: SideBySideProps) {
  const t = text();
  const evaluations = [String(compared.a.evaluation), String(compared.b.evaluation)] as const;
  const found = useLoad<Found>(
    async (signal) => {
      const truth = await annotated(compared, image.image, signal);
      if (truth) {
        const file = new File([await (await fetch(local(truth.url), { signal })).blob()], truth.name);
        const [first, second] = await Promise.all([predict(file, a, null, signal), predict(file, b, null, signal)]);
        return { live: { image: truth, a: first, b: second }, reports: null };
      }
      return { live: null, reports: await Promise.all([readReport(a, signal, evaluations[0]), readReport(b, signal, evaluations[1])]) };
    },
    [...evaluations, image.image],
  );
  const threshold = Number((compared.b.thresholds as Record<string, unknown> | undefined)?.confidence ?? 0.25);
  return (
    <Dialog title={image.image} wide onClose={onClose}>
      <div class="stack" tabIndex={0} role="group" aria-label={image.image}>
        <ErrorBox error={found.error} retry={found.reload} />
        {!found.data && found.loading && <Loading />}
        {found.data?.live && <Stages live={found.data.live} image={image} threshold={threshold} a={a} b={b} />}
        {found.data?.reports && (
          <>
            <Kept side="A" id={a} errors={image.a} report={found.data.reports[0]} image={image.image} />
            <Kept side="B" id={b} errors={image.b} report={found.data.reports[1]} image={image.image} />
          </>
        )}
        {found.data?.live && <p class="muted small">{t.askedNow}</p>}
      </div>
    </Dialog>
  );
}

/** The image among the uploaded datasets; null: it was evaluated on another folder, or is gone. */
async function annotated(compared: Comparison, image: string, signal: AbortSignal): Promise<Annotated | null> {
  const { name, fingerprint } = compared.dataset as { name: string; fingerprint: string };
  const { datasets } = await answer(api.GET("/api/datasets", { signal }));
  const dataset = datasets.find((one) => one.id === name || one.fingerprint === fingerprint);
  if (!dataset) return null;
  const path = { dataset_id: dataset.id };
  const query = { q: image.split("/").pop() ?? image, limit: 100 };
  const { images } = await answer(api.GET("/api/datasets/{dataset_id}/images", { params: { path, query }, signal }));
  const same = (one: string) => one === image || one.endsWith(`/${image}`) || image.endsWith(`/${one}`);
  const listed = images.find((one) => one.content && same(one.name));
  if (!listed) return null;
  const call = { params: { path: { ...path, content: listed.content }, query: { source: "person" as const } }, signal };
  return answer(api.GET("/api/datasets/{dataset_id}/images/{content}/annotations", call));
}

function Stages({ live, image, threshold, a, b }: { live: Live; image: Changed; threshold: number; a: string; b: string }) {
  const t = text();
  const colour = colours([{ classes: live.image.classes }]);
  const truth = live.image.objects;
  return (
    <div class="models-stages">
      <Shown title={t.truth} image={live.image} objects={truth.map((one) => ofPerson(one, colour)).filter((one) => one !== null)} labels={truth.map((one) => one.label)} />
      <Predicted title={`A · ${a}`} errors={image.a} image={live.image} tried={live.a} threshold={threshold} colour={colour} />
      <Predicted title={`B · ${b}`} errors={image.b} image={live.image} tried={live.b} threshold={threshold} colour={colour} />
    </div>
  );
}

function Predicted({ title, errors, image, tried, threshold, colour }: { title: string; errors: number; image: Annotated; tried: Tried; threshold: number; colour: Colour }) {
  const shown = above(tried.answer.predictions, threshold);
  const objects = shown.map((one) => drawable(one, colour(one.label))).filter((one) => one !== null);
  const labels = objects.length ? [] : shown.slice(0, 3).map((one) => `${one.label} ${one.confidence.toFixed(2)}`);
  return <Shown title={title} note={text().errorsCount(errors)} image={image} objects={objects} labels={labels} />;
}

interface ShownProps {
  title: string;
  note?: string;
  image: Annotated;
  objects: StageObject[];
  /** Classes of the whole image. */
  labels: string[];
}

function Shown({ title, note, image, objects, labels }: ShownProps) {
  return (
    <figure class="stack tight">
      <figcaption>
        <b>{title}</b> {note && <span class="muted">{note}</span>}
      </figcaption>
      <ImageStage src={`${local(image.url)}?as=browser&decoding=${DECODING}`} alt={`${title}: ${image.name}`} width={image.width} height={image.height} objects={objects} />
      {!objects.length && labels.length > 0 && <p>{labels.join(", ")}</p>}
    </figure>
  );
}

/** What a person has annotated, as the stage draws it; null: a class of the whole image. */
function ofPerson(one: Schemas["Shape"], colour: Colour): StageObject | null {
  const rings = (one.parts ?? []).flatMap((part) => [part.outline, ...(part.holes ?? [])]) as [number, number][][];
  if (!one.box && !rings.length && !one.keypoints?.length) return null;
  return {
    label: one.label,
    box: one.box as StageObject["box"],
    rings: rings.length ? rings : undefined,
    points: one.keypoints?.filter((point) => point.visibility > 0).map((point) => ({ x: point.x, y: point.y, visible: point.visibility === 2 })),
    source: "person",
    colour: colour(one.label),
  };
}

function Kept({ side, id, errors, report, image }: { side: string; id: string; errors: number; report: Report | null; image: string }) {
  const t = text();
  const kept = report?.worst.find((one) => one.image === image);
  return (
    <figure class="stack tight">
      <figcaption class="row">
        <b>
          {side} · {id}
        </b>
        <span class="muted">{t.errorsCount(errors)}</span>
        {kept && <span class="muted">{kept.reason}</span>}
      </figcaption>
      {kept && report ? (
        <img class="models-side" src={address(`${pathOf(id)}/${kept.file}?evaluation=${report.evaluation}`)} alt={t.worstAlt(image)} />
      ) : (
        <Notice>{errors === 0 ? t.noErrors : t.notKept}</Notice>
      )}
    </figure>
  );
}
