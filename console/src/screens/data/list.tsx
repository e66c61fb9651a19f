/** All datasets as cards. */
import { useEffect, useRef, useState } from "preact/hooks";
import { answer, api } from "../../api";
import { Badge, Empty, ErrorBox, Loading } from "../../components/Feedback";
import { Icon } from "../../components/Icon";
import { useLoad } from "../../load";
import { link } from "../../router";
import { may } from "../../session";
import { ago, number } from "../../text";
import { complete, type Dataset } from "./dataset";
import { Missing } from "./problems";
import { text } from "./text";
import { Thumbnail, type ListedImage } from "./thumbnail";
import { UnderWay } from "./upload";

const IN_STRIP = 4;

export function imagesOf(dataset: Dataset): number {
  const placed = Object.values(dataset.splits).reduce((sum, split) => sum + split.images, 0);
  const waiting = Number((dataset.accounting.images as Record<string, number> | undefined)?.without_annotation ?? 0);
  return dataset.revision ? Math.max(dataset.files, placed) : placed || waiting || dataset.files;
}

export function DatasetCards() {
  const t = text();
  const { data, error, reload } = useLoad((signal) => answer(api.GET("/api/datasets", { signal })), [], ["dataset"]);
  return (
    <>
      <div class="row between">
        <h1>{t.title}</h1>
        <div class="row">
          <a class="button normal" href={link(["data", "new"])}>
            <Icon name="annotate" />
            {t.newDataset}
          </a>
          <a class="button primary normal" href={link(["data", "upload"])}>
            <Icon name="upload" />
            {t.upload}
          </a>
        </div>
      </div>
      <UnderWay />
      <ErrorBox error={error} retry={reload} />
      {!data && !error && <Loading />}
      {data && !data.datasets.length && (
        <Empty icon="data" title={t.none}>
          <p class="muted">{may("annotate") ? t.noneHint : t.needs("annotate")}</p>
        </Empty>
      )}
      {data && data.datasets.length > 0 && (
        <ul class="plain data-cards">
          {data.datasets.map(complete).map((dataset) => (
            <li key={dataset.id}>
              <Card dataset={dataset} />
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function Card({ dataset }: { dataset: Dataset }) {
  return (
    <a class="card data-card" href={link(["data", dataset.id])}>
      <Strip dataset={dataset} />
      <h2 class="clip" title={dataset.name}>
        {dataset.name}
      </h2>
      <Facts dataset={dataset} />
      <p class="muted small">{ago(dataset.created_at)}</p>
    </a>
  );
}

/** What a dataset is, in a line: images, classes, task, state. */
export function Facts({ dataset, linked = false }: { dataset: Dataset; linked?: boolean }) {
  const t = text();
  const images = imagesOf(dataset);
  const problems = dataset.problems.length;
  const classes = dataset.classes.length;
  const facts = [
    images === 1 ? t.image(number(images)) : t.images(number(images)),
    classes === 1 ? t.oneClass : classes ? t.classes(number(classes)) : "",
    t.tasks[dataset.task],
    t.revision(dataset.revision),
  ];
  return (
    <p class="row data-facts">
      <span>{facts.filter(Boolean).join(" · ")}</span>
      {dataset.usable ? <Badge kind="good">{t.usable}</Badge> : <Badge kind="warn">{linked ? <Missing id={dataset.id} /> : t.notUsable}</Badge>}
      {dataset.to_review > 0 && <Badge kind="accent">{t.toReview(number(dataset.to_review))}</Badge>}
      {problems > 0 && <Badge>{problems === 1 ? t.oneProblem : t.problems(number(problems))}</Badge>}
    </p>
  );
}

/** The first images of a dataset, read when the card comes into view. */
function Strip({ dataset }: { dataset: Dataset }) {
  const place = useRef<HTMLDivElement>(null);
  const [images, setImages] = useState<ListedImage[]>([]);
  useEffect(() => {
    const control = new AbortController();
    const observer = new IntersectionObserver(([entry]) => {
      if (!entry?.isIntersecting) return;
      observer.disconnect();
      const params = { path: { dataset_id: dataset.id }, query: { limit: IN_STRIP } };
      answer(api.GET("/api/datasets/{dataset_id}/images", { params, signal: control.signal }))
        .then((found) => setImages(found.images))
        .catch(() => {}); // the card says the rest; its page shows the error
    });
    observer.observe(place.current!);
    return () => {
      observer.disconnect();
      control.abort();
    };
  }, [dataset.id, dataset.revision]);
  return (
    <div ref={place} class="data-strip" aria-hidden="true">
      {images.map((image, at) => (
        <Thumbnail key={at} image={image} boxes={false} />
      ))}
    </div>
  );
}
