import { text } from "./text";

export default function Train() {
  return <h1>{text().title}</h1>;
}
