// A plugin for MyST (`project.plugins` in myst.yml): the links that the site adds to the pages, for any theme.
//
//   launch      a line under the title of every chapter: download the notebook or its source, open it on Binder or Colab
//   words       `[tube mask](#term-tube-mask)` leads to that word of appendix a
//   library     a library name in backticks (`layers.random_mask`, `layers/masking.py`) becomes a link to its entry, and
//               every chapter ends with the library files that it imports
//
// It runs while pages are parsed, before links are resolved, so what it adds is checked like everything else.
//
// Launch links need one setting, the repository: `project.github` in myst.yml or, where GitHub builds the site, the
// repository that runs the build. Without either there are download links only.

import fs from "node:fs";
import path from "node:path";

const BRANCH = "main";
const LIBRARY = "api"; // the folder that ci/api_pages.py wrote

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

/** "layers.random_mask", "masking.random_mask", "s4d_lib.layers.masking", "layers/masking.py" → the label of its entry, or null. */
export function labelOf(mention, mentions) {
  const whole = /^s4d_lib[./]/.test(mention); // a bare word such as `masking` is no mention of the file
  const name = mention.replace(/^s4d_lib[./]/, "").replace(/\(\)$/, "");
  const path = name.replaceAll(".", "/");
  const spellings = whole ? [name, `${path}.py`, `${path}/`] : [name];
  const found = spellings.find((spelling) => Object.hasOwn(mentions, spelling));
  return found ? mentions[found] : null;
}

/** `#term-tube-mask` → the glossary's "tube mask": MyST keeps the blank, which no link can spell. */
function term(node) {
  const identifier = `term-${node.url.slice("#term-".length).replaceAll("-", " ")}`;
  return { type: "crossReference", identifier, label: identifier, children: node.children };
}

function linkMentions(tree, mentions, inLink = false) {
  for (const [at, node] of (tree.children ?? []).entries()) {
    const label = node.type === "inlineCode" && !inLink ? labelOf(node.value ?? "", mentions) : null;
    if (label) tree.children[at] = { type: "link", url: `#${label}`, children: [node] };
    else if (node.type === "link" && node.url?.startsWith("#term-")) tree.children[at] = term(node);
    else if (node.type !== "heading") linkMentions(node, mentions, inLink || node.type === "link");
  }
}

const addLinks = {
  name: "add-links",
  stage: "document",
  plugin: () => (tree, file) => {
    const { mentions = {}, chapters = {} } = JSON.parse(readIfThere(path.join(LIBRARY, "labels.json")) || "{}");
    linkMentions(tree, mentions);
    const { name, ext, dir } = path.parse(file.path);
    if (ext !== ".ipynb" || path.basename(dir) !== "chapters") return;
    const used = Object.entries(chapters[name] ?? {});
    if (used.length) {
      const links = used.flatMap(([said, label], at) => [text(at ? ", " : "Library files of this page: "), link(`#${label}`, said)]);
      tree.children.push({ type: "block", children: [{ type: "paragraph", class: "library", children: [...links, text(".")] }] });
    }
    tree.children.unshift({ type: "block", children: [launchLine(name, repository())] });
  },
};

export default { name: "Links of this book", transforms: [addLinks] };
