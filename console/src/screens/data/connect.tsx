/** The addresses by which annotation tools reach this server. */
import { address } from "../../api";
import { Code } from "../../components/Copy";
import { Notice } from "../../components/Feedback";
import { session } from "../../session";
import type { Dataset } from "./dataset";
import { text } from "./text";

export default function Connect({ dataset }: { dataset: Dataset }) {
  const t = text().connect;
  const here = (path: string) => new URL(address(path), location.href).href.replace(/\/$/, "");
  const { hostname, port, protocol } = location;
  const cvat = [
    "CVAT_SERVERLESS=1",
    `CVAT_NUCLIO_HOST=${hostname}`,
    `CVAT_NUCLIO_PORT=${port || (protocol === "https:" ? "443" : "80")}`,
    "CVAT_NUCLIO_INVOKE_METHOD=dashboard",
  ].join("\n");
  return (
    <div class="stack">
      <p class="muted">{t.intro}</p>
      {session.value?.token_needed && <Notice>{t.token}</Notice>}
      <Code label={t.labelStudio} text={here("/label-studio")} />
      <Code label={t.labelStudioHook} text={here("/label-studio/webhook")} />
      <Code label={t.xany} text={`XANYLABELING_SERVER_URL=${here("/")}`} />
      <Code label={t.cvat} text={cvat} />
      <Code label={t.dataset} text={dataset.id} />
      <Code label={t.send} text={`curl -F file=@corrected.zip ${here(`/api/datasets/${dataset.id}/annotations`)}`} />
    </div>
  );
}
