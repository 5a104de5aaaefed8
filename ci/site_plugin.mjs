// page → page     what the site adds to the pages: ways to run a notebook, links into the library, alt text of pictures.
//
// A MyST plugin. It runs while the pages are parsed, before links and citations are resolved, so whatever it adds is
// checked like everything else. The notebooks themselves stay as they are.
//
// Launch links need one setting, the repository: `project.github` in myst.yml or, where GitHub builds the site, the
// repository that runs the build. Without either there are download links only.

import fs from "node:fs";
import path from "node:path";

const BRANCH = "main";
const LIBRARY = "library"; // the folder that ci/api_pages.py wrote

/** "owner/name", or null where nothing says it. */
export function repository(settings = readIfThere("myst.yml"), environment = process.env) {
  const set = settings.match(/^ {2}github:\s*["']?(?:https:\/\/github\.com\/)?([\w.-]+\/[\w.-]+?)(?:\.git)?\/?["']?\s*(?:#.*)?$/m);
  return set ? set[1] : environment.GITHUB_REPOSITORY || null;
}

function readIfThere(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
}

function text(value) {
  return { type: "text", value };
}

function link(url, said, more = {}) {
  return { type: "link", url, children: [text(said)], ...more };
}

/** A line with the notebook's download and launch links. `stem` is the file name without its ending. */
export function launchLine(stem, where) {
  const parts = [
    text("Run this page: "),
    link(`${stem}.ipynb`, "notebook", { static: true }),
    text(" · "),
    link(`${stem}.md`, "its text source", { static: true }),
  ];
  if (where) {
    const lab = encodeURIComponent(`lab/tree/chapters/${stem}.ipynb`);
    parts.push(text(" · "), link(`https://mybinder.org/v2/gh/${where}/${BRANCH}?urlpath=${lab}`, "Binder"));
    parts.push(text(" · "), link(`https://colab.research.google.com/github/${where}/blob/${BRANCH}/chapters/${stem}.ipynb`, "Colab"));
  }
  return { type: "paragraph", class: "launch", children: parts };
}

/** "masking.random_mask", "s4d_lib.masking", "masking.py" → the label of its entry, or null. */
export function labelOf(mention, entries) {
  const name = mention.replace(/^s4d_lib[./]/, "").replace(/\(\)$/, "");
  const file = name.replace(/\.py$/, "");
  const whole = name !== mention || name.endsWith(".py"); // a bare word such as `masking` is no mention of the file
  if (whole && Object.hasOwn(entries, file)) return `lib-${file}`;
  const [module, entry, ...rest] = name.split(".");
  if (rest.length || !entry || !Object.hasOwn(entries, module)) return null;
  return Object.hasOwn(entries[module], entry) ? entries[module][entry] : null;
}

/** The library files that a notebook's code imports, each once, in order of appearance. */
export function imported(code, entries) {
  const found = [];
  for (const [, one, many] of code.matchAll(/^\s*from s4d_lib(?:\.(\w+) import|\s+import ([\w, ]+))/gm)) {
    for (const file of one ? [one] : many.split(",").map((word) => word.trim().split(" ")[0])) {
      if (Object.hasOwn(entries, file) && !found.includes(file)) found.push(file);
    }
  }
  return found;
}

function linkMentions(tree, entries, inLink = false) {
  for (const [at, node] of (tree.children ?? []).entries()) {
    const label = node.type === "inlineCode" && !inLink ? labelOf(node.value ?? "", entries) : null;
    if (label) tree.children[at] = { type: "link", url: `#${label}`, children: [node] };
    else if (node.type !== "heading") linkMentions(node, entries, inLink || node.type === "link");
  }
}

/** `#| alt: …` of a code cell becomes the plain-text form of its pictures, which themes show as their alt text. */
function describePictures(blocks) {
  for (const block of blocks) {
    const alt = block.data?.alt;
    for (const output of alt ? (block.children ?? []).flatMap(outputsIn) : []) {
      const data = output.jupyter_data?.data;
      if (data && Object.keys(data).some((mime) => mime.startsWith("image/"))) data["text/plain"] = alt;
    }
    delete block.data?.alt;
  }
}

function outputsIn(node) {
  return node.type === "output" ? [node] : (node.children ?? []).flatMap(outputsIn);
}

/** A solution begins in one cell and ends in a later one: everything between moves into it. Yields what does not close. */
export function* joinSolutions(tree) {
  let open = null;
  for (const block of [...tree.children]) {
    const children = block.children ?? [];
    const end = children.findIndex((node) => node.type === "solution" && node.gate === "end");
    if (open && end < 0) {
      open.children.push(block);
      tree.children.splice(tree.children.indexOf(block), 1);
      if (children.some((node) => node.gate)) yield "a solution begins before the one above has its {solution-end}";
      continue;
    }
    if (end >= 0) {
      if (!open) yield "a {solution-end} without a {solution-start}";
      open?.children.push(...children.slice(0, end));
      block.children = children.slice(open ? end + 1 : 0);
      delete open?.gate;
      open = null;
    }
    const last = block.children?.at(-1);
    if (last?.type === "solution" && last.gate === "start") open = last;
    for (const node of block.children ?? []) {
      if (node.gate && node !== open) yield `an {${node.type}-${node.gate}} has no partner in its cell`;
    }
  }
  if (open) yield "the last solution has no {solution-end}";
}

function codeIn(node) {
  return node.type === "code" && node.executable ? `${node.value}\n` : (node.children ?? []).map(codeIn).join("");
}

const additions = {
  name: "book-additions",
  doc: "Adds download and launch links, links into the library, and alt text to the pages.",
  stage: "document",
  plugin: (_, utils) => (tree, file) => {
    for (const problem of joinSolutions(tree)) file.message(problem).fatal = true; // an error of the build
    for (const block of tree.children) {
      if (block.label) continue; // only what somebody named can be linked to; two notebooks may hold an equal cell
      delete block.identifier;
      delete block.html_id;
    }
    const entries = JSON.parse(readIfThere(path.join(LIBRARY, "labels.json")) || "{}");
    describePictures(utils.selectAll("block", tree));
    linkMentions(tree, entries);
    const { name, ext, dir } = path.parse(file.path);
    if (ext !== ".ipynb" || path.basename(dir) !== "chapters") return;
    const used = imported(codeIn(tree), entries);
    if (used.length) {
      const links = used.flatMap((module, at) => [text(at ? ", " : "Library files of this page: "), link(`#lib-${module}`, `${module}.py`)]);
      tree.children.push({ type: "block", children: [{ type: "paragraph", class: "library", children: [...links, text(".")] }] });
    }
    tree.children.splice(1, 0, { type: "block", children: [launchLine(name, repository())] });
  },
};

export default { name: "Static for Dynamic: additions to the pages", transforms: [additions] };
