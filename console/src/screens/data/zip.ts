/** Packs files into a zip without compression, so that a folder is one upload. */

export interface NamedFile {
  /** Its path in the folder that was dropped. */
  path: string;
  file: Blob;
}

/** Limits of a zip without its 64-bit extension. */
export const MOST_FILES = 65_000;
export const MOST_BYTES = 4 * 2 ** 30 - 2 ** 26;

const TABLE = new Uint32Array(256).map((_, at) => {
  let value = at;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** The CRC-32 of bytes, continued from that of what is before them. */
export function crc32(data: Uint8Array, before = 0): number {
  let value = ~before >>> 0;
  for (let at = 0; at < data.length; at += 1) value = (value >>> 8) ^ TABLE[(value ^ data[at]!) & 255]!;
  return ~value >>> 0;
}

async function sumOf(file: Blob): Promise<number> {
  let value = 0;
  const reader = file.stream().getReader();
  for (;;) {
    const { done, value: part } = await reader.read();
    if (done) return value;
    value = crc32(part, value);
  }
}

function fields(...values: [size: 2 | 4, value: number][]): Uint8Array<ArrayBuffer> {
  const data = new DataView(new ArrayBuffer(values.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of values) {
    if (size === 2) data.setUint16(at, value, true);
    else data.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(data.buffer);
}

const UTF8 = 0x0800;
const DATE = (2026 - 1980) * 512 + 33; // a date is required; the same one gives equal zips

/** A zip of files; their contents are read once for the checksums, and stay on the disk. */
export async function packed(files: readonly NamedFile[], onProgress?: (share: number) => void, signal?: AbortSignal): Promise<Blob> {
  const parts: BlobPart[] = [];
  const directory: BlobPart[] = [];
  let offset = 0;
  let directorySize = 0;
  for (const [at, { path, file }] of files.entries()) {
    signal?.throwIfAborted();
    const name = new TextEncoder().encode(path);
    const sum = await sumOf(file);
    const common = fields([2, 20], [2, UTF8], [2, 0], [2, 0], [2, DATE], [4, sum], [4, file.size], [4, file.size], [2, name.length], [2, 0]);
    const header = fields([4, 0x04034b50]);
    parts.push(header, common, name, file);
    const before = fields([4, 0x02014b50], [2, 20]);
    const after = fields([2, 0], [2, 0], [2, 0], [4, 0], [4, offset]);
    directory.push(before, common, after, name);
    directorySize += before.length + common.length + after.length + name.length;
    offset += header.length + common.length + name.length + file.size;
    onProgress?.((at + 1) / files.length);
  }
  const end = fields([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, directorySize], [4, offset], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
