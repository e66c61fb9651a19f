/** The console: starts the page. */
import "./words";
import { render } from "preact";
import { startEvents } from "./events";
import { readSession } from "./session";
import { App } from "./shell/App";
import "./style.css";
import "./theme";

const place = document.getElementById("app")!;

function show(startFailed: unknown): void {
  render(<App startFailed={startFailed} retry={start} />, place);
}

function start(): void {
  show(undefined);
  readSession().catch((error: unknown) => {
    show(error);
    setTimeout(start, 5000);
  });
}

start();
startEvents();
