/** What the live region says of a notice. */
import type { Notice } from "./engine/editor";
import { text } from "./text";

export function sentence(notice: Notice): string {
  const t = text();
  const { said } = t;
  switch (notice.what) {
    case "selected": {
      const { label, kind, index, of, suggested, score } = notice;
      const tail = score !== null ? said.score(Math.round(score * 100)) : suggested ? said.suggested : "";
      return said.selected(label, t.kind[kind], index, of, tail);
    }
    case "selected-many":
      return said.many(notice.count);
    case "deleted":
    case "rejected":
    case "accepted":
    case "copied":
    case "pasted":
    case "duplicated":
      return said[notice.what](notice.count);
    case "moved":
      return said.moved(notice.label, notice.box[0], notice.box[1]);
    case "resized":
      return said.resized(notice.label, notice.box[2] - notice.box[0], notice.box[3] - notice.box[1]);
    case "drawn":
      return said.drawn(notice.label, t.kind[notice.kind]);
    case "relabelled":
      return said.relabelled(notice.label);
    case "class":
      return said.class(notice.label);
    case "class-chosen":
      return said.chosen(notice.label);
    case "class-removed":
      return said.removed(notice.label);
    case "corner":
      return said.corner(notice.index, notice.of, notice.hole, notice.x, notice.y);
    case "corner-inserted":
      return said.inserted(notice.index, notice.of);
    case "corner-deleted":
      return said.removedCorner(notice.of);
    case "handle":
      return said.handle(notice.x, notice.y);
    case "keypoint":
      return notice.visibility
        ? said.keypoint(notice.name, t.visibility.split("|")[notice.visibility]!, notice.x, notice.y)
        : said.gone(notice.name);
    case "cursor":
      return said.cursor(notice.x, notice.y);
    case "point-placed":
      return said.placed(notice.count);
    case "undone":
      return said.undone(t.steps[notice.step], notice.left);
    case "redone":
      return said.redone(t.steps[notice.step]);
    case "tool":
      return said.tool(t.tool[notice.tool]);
    case "suggestions":
      return notice.shown ? said.shown(notice.count) : said.hidden;
    default:
      return said[notice.what];
  }
}
