import { text } from "./text";

export default function Operate() {
  return <h1>{text().title}</h1>;
}
