import { text } from "./text";

export default function Models() {
  return <h1>{text().title}</h1>;
}
