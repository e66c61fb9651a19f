import { route } from "../../router";
import { Compare } from "./Compare";
import { List } from "./List";
import { NamePage } from "./NamePage";
import { VersionPage } from "./VersionPage";
import "./models.css";

/** `#/models`, `#/models/NAME`, `#/models/NAME:VERSION`, `#/models/NAME:VERSION/compare`. */
export default function Models() {
  const [, id, part] = route.value.path;
  if (!id) return <List />;
  if (part === "compare") return <Compare key={id} b={id} />;
  return id.includes(":") ? <VersionPage key={id} id={id} /> : <NamePage key={id} name={id} />;
}
