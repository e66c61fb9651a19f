import { route } from "../../router";
import { JobPage } from "./JobPage";
import { JobList } from "./JobList";
import { ModeChoice, NewTraining } from "./NewTraining";
import { MODES } from "./settings";
import "./train.css";

/** `#/train`, `#/train/new`, `#/train/new/MODE`, `#/train/JOB`. */
export default function Train() {
  const [, first, second] = route.value.path;
  if (!first) return <JobList />;
  if (first !== "new") return <JobPage key={first} id={first} />;
  const mode = MODES.find((one) => one === second);
  return mode ? <NewTraining key={mode + route.value.query.get("from")} mode={mode} /> : <ModeChoice />;
}
