/** Datasets: what they contain, whether they are fit to train on, and how to get them in and out. */
import { answer, api } from "../../api";
import { ErrorBox, Loading } from "../../components/Feedback";
import { Icon } from "../../components/Icon";
import { Tabs } from "../../components/Tabs";
import { useLoad } from "../../load";
import { link, route } from "../../router";
import { complete } from "./dataset";
import { Actions } from "./actions";
import Connect from "./connect";
import "./data.css";
import Images from "./images";
import { DatasetCards, Facts } from "./list";
import Overview from "./overview";
import Queue from "./queue";
import Revisions from "./revisions";
import { text } from "./text";
import { UnderWay, Uploader } from "./upload";

/** Part of a dataset's page → what it shows; each has an address. */
const PARTS = { overview: Overview, images: Images, queue: Queue, revisions: Revisions, connect: Connect };
type Part = keyof typeof PARTS;

export default function Data() {
  const [, id, part] = route.value.path;
  if (id === "upload") return <Uploader key="upload" purpose="upload" />;
  if (id === "new") return <Uploader key="annotate" purpose="annotate" />;
  return id ? <DatasetPage key={id} id={id} part={part ?? "overview"} /> : <DatasetCards />;
}

function DatasetPage({ id, part }: { id: string; part: string }) {
  const t = text();
  const { data: dataset, error, reload } = useLoad(
    async (signal) => complete(await answer(api.GET("/api/datasets/{dataset_id}", { params: { path: { dataset_id: id } }, signal }))),
    [id],
    ["dataset"],
  );
  const back = (
    <p>
      <a class="back" href={link(["data"])}>
        <Icon name="back" size={16} />
        {t.back}
      </a>
    </p>
  );
  if (!dataset) {
    return (
      <>
        {back}
        {error ? <ErrorBox error={error} retry={reload} /> : <Loading />}
      </>
    );
  }
  if (part === "add") return <Uploader purpose="add" dataset={dataset} />;
  const current: Part = part in PARTS ? (part as Part) : "overview";
  const Shown = PARTS[current];
  const tabs = (Object.keys(PARTS) as Part[]).map((name) => ({
    id: name,
    text: t.tabs[name],
    href: link(name === "overview" ? ["data", id] : ["data", id, name]),
  }));
  return (
    <>
      {back}
      <UnderWay />
      <div class="row between">
        <div class="stack tight head">
          <h1>{dataset.name}</h1>
          <Facts dataset={dataset} linked />
        </div>
        <Actions dataset={dataset} />
      </div>
      <Tabs label={t.tabsLabel} current={current} tabs={tabs} />
      <ErrorBox error={error} retry={reload} />
      <Shown dataset={dataset} />
    </>
  );
}
