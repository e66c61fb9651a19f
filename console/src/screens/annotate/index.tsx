import { text } from "./text";

export default function Annotate() {
  return <h1>{text().title}</h1>;
}
