import { text } from "./text";

export default function Data() {
  return <h1>{text().title}</h1>;
}
