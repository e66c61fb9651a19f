/** The files of a drop or of an input, with their paths. */
import type { NamedFile } from "./zip";

export interface Dropped {
  files: NamedFile[];
  /** Hidden and empty files, which no dataset needs. */
  left: number;
}

const HIDDEN = /(^|\/)(\.|__MACOSX|Thumbs\.db|desktop\.ini)/;

function kept(files: NamedFile[]): Dropped {
  const good = files.filter(({ path, file }) => file.size > 0 && !HIDDEN.test(path));
  return { files: good, left: files.length - good.length };
}

/** The files that were chosen in an input, of files or of a folder. */
export function chosen(input: HTMLInputElement): Dropped {
  return kept([...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
}

/** The files of a drop; folders are read to their depth. */
export async function dropped(data: DataTransfer): Promise<Dropped> {
  // The entries are gone after the first await.
  const entries = [...data.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (!entries.length) return kept([...data.files].map((file) => ({ path: file.name, file })));
  const found: NamedFile[] = [];
  for (const entry of entries) await read(entry, found);
  return kept(found);
}

async function read(entry: FileSystemEntry, found: NamedFile[]): Promise<void> {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    const file = await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail));
    found.push({ path, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A reader answers a hundred entries at a time.
    const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const one of some) await read(one, found);
  }
}
