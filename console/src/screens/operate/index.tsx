/** Operate: the whole service on one screen; for administrators also tokens and the audit trail. */
import { Tabs } from "../../components/Tabs";
import { Empty } from "../../components/Feedback";
import { link, route } from "../../router";
import { may } from "../../session";
import { Audit } from "./Audit";
import "./operate.css";
import { Overview } from "./Overview";
import { text } from "./text";
import { Tokens } from "./Tokens";

const SECTIONS = ["overview", "tokens", "audit"] as const;

export default function Operate() {
  const t = text();
  const section = SECTIONS.find((name) => name === route.value.path[1]) ?? "overview";
  const tabs = SECTIONS.map((id) => ({ id, text: t[id], href: link(id === "overview" ? ["operate"] : ["operate", id]) }));
  return (
    <>
      <h1>{t.title}</h1>
      {may("admin") && <Tabs label={t.sections} current={section} tabs={tabs} />}
      {section === "overview" ? (
        <Overview />
      ) : !may("admin") ? (
        <Empty icon="key" title={t.needsAdmin} />
      ) : section === "tokens" ? (
        <Tokens />
      ) : (
        <Audit />
      )}
    </>
  );
}
