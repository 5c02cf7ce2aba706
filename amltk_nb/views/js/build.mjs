// Bundles the page's side into one script and one style sheet beside the Python that sends them.
//   node build.mjs           write them
//   node build.mjs --check   fail when what is committed is not what the sources give

import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = 40 * 1024; // gzipped, both together: sent once per dashboard and page
const out = new URL("../static/", import.meta.url);

const result = await build({
  absWorkingDir: new URL(".", import.meta.url).pathname,
  entryPoints: { widget: "src/index.tsx" },
  outdir: "out",
  bundle: true,
  write: false,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  charset: "utf8",
  legalComments: "none",
});

const files = result.outputFiles.map((file) => ({
  name: file.path.endsWith(".css") ? "widget.css" : "widget.js",
  text: file.text,
}));
const nBytes = files.reduce((sum, file) => sum + gzipSync(file.text, { level: 9 }).length, 0);
if (nBytes > BUDGET_BYTES) {
  console.error(`The bundle is ${nBytes} bytes gzipped, more than the ${BUDGET_BYTES} it may be.`);
  process.exit(1);
}

for (const { name, text } of files) {
  const target = new URL(name, out);
  if (!process.argv.includes("--check")) {
    writeFileSync(target, text);
  } else if (readFileSync(target, "utf8") !== text) {
    console.error(`static/${name} is not what the sources give: run "npm run build" and commit it.`);
    process.exitCode = 1;
  }
}
console.log(`${files.map((file) => file.name).join(" + ")}: ${nBytes} bytes gzipped`);
