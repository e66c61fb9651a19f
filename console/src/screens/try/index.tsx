import { text } from "./text";

export default function Try() {
  return <h1>{text().title}</h1>;
}
