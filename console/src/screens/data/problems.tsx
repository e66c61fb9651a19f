/** The problems of a dataset, the fatal ones first. */
import type { ComponentChildren } from "preact";
import { Badge } from "../../components/Feedback";
import { Icon } from "../../components/Icon";
import { link } from "../../router";
import { said } from "../../said";
import { text } from "./text";

export interface ShownProblem {
  kind: string;
  message: string;
  fatal: boolean;
}

/** "Cannot be trained on yet", with the way to what is missing. */
export function Missing({ id }: { id: string }) {
  return <a href={link(["data", id], { problems: 1 })}>{text().notUsable}</a>;
}

export function Problems<T extends ShownProblem>({ problems, children }: { problems: readonly T[]; children?: (problem: T) => ComponentChildren }) {
  const t = text().overview;
  if (!problems.length) {
    return (
      <p class="row">
        <span class="state completed">
          <Icon name="check" />
        </span>
        {t.noProblems}
      </p>
    );
  }
  return (
    <ul class="plain data-problems">
      {problems.map((problem, at) => (
        <li key={`${problem.kind} ${at}`} class={problem.fatal ? "fatal" : ""}>
          <Icon name={problem.fatal ? "error" : "warn"} />
          <div class="stack tight">
            <p>
              {said(problem.message)} {problem.fatal && <Badge kind="bad">{t.fatal}</Badge>}
            </p>
            {children?.(problem)}
          </div>
        </li>
      ))}
    </ul>
  );
}
