import { text } from "./text";

export default function Loop() {
  return <h1>{text().title}</h1>;
}
