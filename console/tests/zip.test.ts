import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { crc32, packed } from "../src/screens/data/zip.ts";

test("the checksum is CRC-32, in one piece or in two", () => {
  const data = new TextEncoder().encode("123456789");
  assert.equal(crc32(data), 0xcbf43926);
  assert.equal(crc32(data.slice(4), crc32(data.slice(0, 4))), 0xcbf43926);
});

test("another program reads the zip", async () => {
  const folder = mkdtempSync(join(tmpdir(), "zip-"));
  try {
    const shares: number[] = [];
    const files = [
      { path: "set/images/Straße 图.png", file: new Blob([new Uint8Array(100_000).fill(7)]) },
      { path: "set/labels/a.txt", file: new Blob(["0 0.5 0.5 0.1 0.1\n"]) },
      { path: "set/empty.txt", file: new Blob([]) },
    ];
    const zip = await packed(files, (share) => shares.push(share));
    const place = join(folder, "a.zip");
    writeFileSync(place, Buffer.from(await zip.arrayBuffer()));
    const program = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(z.testzip()); print('|'.join(z.namelist())); print(z.read('set/labels/a.txt').decode())";
    const read = spawnSync("python3", ["-c", program, place], { encoding: "utf8", env: { ...process.env, PYTHONIOENCODING: "utf-8" } });
    assert.equal(read.stderr, "");
    assert.equal(read.stdout, `None\n${files.map((one) => one.path).join("|")}\n0 0.5 0.5 0.1 0.1\n\n`);
    assert.deepEqual(shares.at(-1), 1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("packing can be cancelled", async () => {
  const control = new AbortController();
  control.abort();
  await assert.rejects(packed([{ path: "a", file: new Blob(["a"]) }], undefined, control.signal), { name: "AbortError" });
});
