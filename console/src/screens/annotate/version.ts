import { useEffect, useState } from "preact/hooks";
import type { Change, Editor } from "./engine/editor";

/** Render again when something of the editor changes, once a frame at most. */
export function useVersion(editor: Editor, kinds: readonly Change[]): number {
  const [version, setVersion] = useState(0);
  useEffect(() => {
    let frame = 0;
    const end = editor.onChange((change) => {
      if (!kinds.includes(change)) return;
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setVersion((before) => before + 1);
      });
    });
    return () => {
      cancelAnimationFrame(frame);
      end();
    };
  }, [editor]);
  return version;
}
