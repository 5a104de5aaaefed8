// A plugin for MyST (`project.plugins` in myst.yml): what a page made from a notebook lacks, for any theme.
//
//   gates       `{solution-start}` … `{solution-end}` with code cells between them. MyST joins such gates among the children
//               of one node; in a notebook every cell is a node of its own, so it finds each gate open and stops the build.
//   alt text    the cell option `alt` becomes the text/plain twin of each picture among the cell's outputs, which is what
//               themes give as its alternative text; without it they read out "<PIL.Image.Image image mode=P …>".
//   links       in tables that a cell displays as Markdown: MyST reads no outputs, so `07_name.ipynb` would stay as it is.

const COMPLAINT = "gated-nodes-join"; // the rule under which MyST reports a gate it could not close
const cellLike = (cell, children) => ({ type: "block", kind: cell.kind, data: cell.data, children });

/** Moves whatever stands between the two halves of a gate into the first; a half without the other is an error. */
function joinGates(tree, file) {
  const joined = [];
  const wrong = [];
  let open = null;
  for (const cell of tree.children) {
    const nodes = cell.type === "block" ? cell.children : [cell];
    if (!nodes.some((node) => node.gate)) {
      (open ? open.children : joined).push(cell);
      continue;
    }
    let rest = Object.assign(cellLike(cell, []), { identifier: cell.identifier, html_id: cell.html_id });
    joined.push(rest);
    for (const node of nodes) {
      if (node.gate === "start") {
        if (open) wrong.push(`A ${node.type} opens inside an open ${open.type}; close that first: {${open.type}-end}.`);
        open = node;
        rest.children.push(node);
      } else if (node.gate === "end") {
        if (open?.type !== node.type) wrong.push(`{${node.type}-end} closes nothing: there is no open ${node.type} above it.`);
        delete open?.gate;
        open = null;
        rest = cellLike(cell, []);
        joined.push(rest);
      } else {
        (open ? open.children : rest.children).push(node);
      }
    }
  }
  if (open) wrong.push(`A ${open.type} is not closed: write {${open.type}-end} in a Markdown cell below it.`);
  tree.children = joined.filter((cell) => cell.type !== "block" || cell.children.length);
  file.messages = file.messages.filter((message) => message.ruleId !== COMPLAINT);
  for (const words of wrong) Object.assign(file.message(words), { fatal: true, ruleId: COMPLAINT });
}

/** Writes a cell's `alt` beside each picture that the cell shows; one text serves all of them. */
function describePictures(tree) {
  const visit = (node, alt) => {
    const here = node.type === "block" ? node.data?.alt : alt;
    const data = node.type === "output" && node.jupyter_data?.data;
    if (data && here && Object.keys(data).some((kind) => kind.startsWith("image/"))) data["text/plain"] = here;
    for (const child of node.children ?? []) visit(child, here);
  };
  visit(tree, undefined);
}

const base = (process.env.BASE_URL ?? "").replace(/\/$/, ""); // themes put it before their own links, not into outputs
const address = (name) => (name === "index" ? `${base}/` : `${base}/${name.replace(/^\d+_/, "").replaceAll("_", "-")}`);

/** Turns links to chapters in displayed Markdown into addresses of their pages. */
function linkChapters(tree) {
  for (const child of tree.children ?? []) linkChapters(child);
  const data = tree.type === "output" && tree.jupyter_data?.data;
  if (!data || !data["text/markdown"]) return;
  data["text/markdown"] = [data["text/markdown"]].flat().join("").replaceAll(
    /\]\((\w+)\.(?:ipynb|md)(#[^)\s]*)?\)/g, (_, name, place) => `](${address(name)}${place ?? ""})`);
}

export default {
  name: "Notebooks of this book",
  transforms: [
    { name: "join-gates", stage: "document", plugin: () => joinGates },
    { name: "describe-pictures", stage: "document", plugin: () => describePictures },
    { name: "link-chapters", stage: "document", plugin: () => linkChapters },
  ],
};
