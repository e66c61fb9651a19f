// Bundles the console into a folder, by default dist: node build.mjs [FOLDER]
// The output is minified, since the page is to be small, but in short lines: it is committed.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { minify } from "terser";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "dist"));

if (!process.argv[2]) await rm(target, { recursive: true, force: true }); // parts of earlier builds
await mkdir(target, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: { main: "src/main.tsx" },
  outdir: target,
  bundle: true,
  splitting: true, // what is imported by `import()` is a file of its own
  chunkNames: "[name]",
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "eof",
  logLevel: "warning",
  preserveSymlinks: true, // the output names its parts alike wherever node_modules lies
  define: { "process.env.NODE_ENV": '"production"' },
  loader: { ".svg": "dataurl" },
});
// What esbuild leaves, terser makes 3 % smaller.
for (const name of (await readdir(target)).filter((one) => one.endsWith(".js"))) {
  const script = join(target, name);
  const { code } = await minify(await readFile(script, "utf8"), {
    module: true,
    ecma: 2020,
    compress: { passes: 3 },
    format: { comments: "some", max_line_len: 4000 },
  });
  await writeFile(script, `${code}\n`);
}
for (const name of ["index.html", "icon.svg"]) {
  await copyFile(join(here, "public", name), join(target, name));
}
