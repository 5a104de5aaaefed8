// Shared by every explorer; `python -m widgets` puts it at the head of each widgets/*.mjs, so that one file is enough.
// An explorer is `explorer({draw})`: dials above, a picture, and a sentence that says what the picture shows.
// Names that come from Python: NAME, TITLE, QUESTION, PALETTE, EXPERTS and RECORDED (with its list of dials).

const SVG = new Set(["svg", "g", "rect", "circle", "line", "path", "polyline", "polygon", "text", "image", "title"]);

/** An HTML or SVG element: h("rect", {x: 1, class: "bar"}, ...children). */
function h(tag, attributes = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map((child) =>
    typeof child === "number" ? String(child) : child));
  return node;
}

const words = (x, y, text, more = {}) => h("text", { x, y, ...more }, text);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const scale = (from, to) => (value) => to[0] + ((value - from[0]) / (from[1] - from[0])) * (to[1] - to[0]);
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
const signed = (value, digits = 1) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

/** Base64 → bytes. */
function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const addresses = new Map();
/** A short address for a picture that arrived as base64, so that the page does not hold its text once per use. */
function address(data, type = "image/webp") {
  if (!addresses.has(data)) {
    const known = globalThis.URL?.createObjectURL && globalThis.Blob;
    addresses.set(data, known ? URL.createObjectURL(new Blob([bytes(data)], { type })) : `data:${type};base64,${data}`);
  }
  return addresses.get(data);
}

/** Cell `index` of a sheet of pictures {data, columns, width, height, count}, drawn as a square or box at x, y. */
function cell(sheet, index, x, y, width, height = width, more = {}) {
  const rows = Math.ceil(sheet.count / sheet.columns);
  const column = index % sheet.columns, row = Math.floor(index / sheet.columns);
  return h("svg", { x, y, width, height, preserveAspectRatio: "none",
    viewBox: `${column * sheet.width} ${row * sheet.height} ${sheet.width} ${sheet.height}`, ...more },
  h("image", { href: address(sheet.data), width: sheet.columns * sheet.width, height: rows * sheet.height,
    preserveAspectRatio: "none" }));
}

/** A horizontal axis with ticks and a name below the line y. */
function axis(page, at, y, ticks, name, format = String) {
  const right = at(ticks[ticks.length - 1]), left = at(ticks[0]);
  return h("g", { class: "axis" }, h("line", { x1: left, x2: right, y1: y, y2: y, class: "line" }),
    ticks.map((tick) => [h("line", { x1: at(tick), x2: at(tick), y1: y, y2: y + 4, class: "line" }),
      words(at(tick), y + 17, format(tick), { "text-anchor": "middle", class: "small" })]),
    name ? words((left + right) / 2, y + 34, name, { "text-anchor": "middle", class: "small" }) : null);
}

/** A picture of the page's width; `height` in pixels, so that text keeps its size on a narrow screen. */
function picture(page, height, ...children) {
  return h("svg", { viewBox: `0 0 ${page.width} ${height}`, width: page.width, height }, ...children);
}

const STYLE = `
.s4d { --ink: #1b1b1b; --dim: #585858; --line: #8a8a8a; --soft: #f2f2f0; --edge: #d2d2ce; --focus: #0072B2; --mark: #0072B2;
  --paper: #ffffff; color: var(--ink); background: var(--paper); border: 1px solid var(--edge); border-radius: 8px;
  padding: 12px; max-width: 800px; box-sizing: border-box; font: 14px/1.45 system-ui, sans-serif; margin: 8px 0; }
.s4d[data-dark] { --ink: #ececec; --dim: #b4b4b4; --line: #9a9a9a; --soft: #2a2a2c; --edge: #4a4a4e; --focus: #7cc4f0;
  --mark: #56B4E9; --paper: #1c1c1e; color-scheme: dark; }
.s4d * { box-sizing: border-box; }
.s4d .title { font-weight: 650; margin: 0; font-size: 15px; color: var(--ink); }
.s4d .question { margin: 0 0 10px; color: var(--dim); }
.s4d .dials { display: grid; grid-template-columns: repeat(auto-fit, minmax(138px, 1fr)); gap: 8px 16px; margin: 0 0 10px;
  padding: 10px; background: var(--soft); border-radius: 6px; }
.s4d .dial { min-width: 0; display: flex; flex-direction: column; justify-content: flex-end; }
.s4d .dial.wide { grid-column: 1 / -1; }
.s4d .dial label { display: flex; justify-content: space-between; gap: 8px; color: var(--ink); font-size: 13px; }
.s4d .dial output { font-variant-numeric: tabular-nums; color: var(--dim); white-space: nowrap; }
.s4d .dial input[type=range] { width: 100%; min-height: 24px; margin: 0; accent-color: var(--mark); }
.s4d .dial select { width: 100%; min-height: 30px; font: inherit; color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); border-radius: 4px; }
.s4d .dial.flag { align-self: end; }
.s4d .dial.flag label { justify-content: flex-start; align-items: center; min-height: 30px; }
.s4d .dial input[type=checkbox] { flex: none; width: 18px; height: 18px; accent-color: var(--mark); margin: 0; }
.s4d :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.s4d .view { overflow: hidden; }
.s4d svg { display: block; max-width: 100%; }
.s4d svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.s4d svg text.small { fill: var(--dim); font-size: 12px; }
.s4d svg text.dim { fill: var(--dim); }
.s4d svg text.strong { font-weight: 650; }
.s4d svg .line { stroke: var(--line); stroke-width: 1; }
.s4d svg .faint { stroke: var(--edge); stroke-width: 1; }
.s4d svg .frame { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.s4d svg .mark { fill: var(--mark); }
.s4d .told { margin: 8px 0 0; min-height: 1.45em; }
.s4d .note { margin: 4px 0 0; color: var(--dim); font-size: 12.5px; }
`;

/** Whether the page around `el` is dark: JupyterLab and the book's theme say so; elsewhere the colour of text tells. */
function isDark(el) {
  const lab = document.body?.getAttribute?.("data-jp-theme-light");
  if (lab !== null && lab !== undefined) return lab === "false";
  const root = document.documentElement;
  if (root?.classList?.contains("dark") || root?.getAttribute?.("data-theme") === "dark") return true;
  if (root?.classList?.contains("light") || root?.getAttribute?.("data-theme") === "light") return false;
  const colour = globalThis.getComputedStyle?.(el)?.color?.match(/[\d.]+/g);
  return Boolean(colour) && 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140;
}

/** One dial: a labelled control that calls `turned(value)` while it moves and `released()` when it rests. */
function dial(spec, prefix, turned, released) {
  const id = `${prefix}-${spec.key}`;
  const output = h("output", { for: id });
  const kind = `dial${spec.wide ? " wide" : ""}`;
  const told = (value) => spec.labels ? spec.labels[spec.options.indexOf(value)] : `${value}${spec.unit ?? ""}`;
  if (spec.kind === "flag") {
    const box = h("input", { type: "checkbox", id, onchange: () => { turned(box.checked); released(); } });
    return { root: h("div", { class: `${kind} flag` }, h("label", { for: id }, box, spec.label)), input: box,
      show: (value) => { box.checked = Boolean(value); } };
  }
  if (spec.kind === "choice") {
    const select = h("select", { id, onchange: () => { turned(spec.options[Number(select.value)]); released(); } },
      spec.options.map((option, place) => h("option", { value: place }, told(option))));
    return { root: h("div", { class: kind }, h("label", { for: id }, spec.label), select), input: select,
      show: (value) => { select.value = String(spec.options.indexOf(value)); } };
  }
  const slider = h("input", { type: "range", id, min: 0, max: spec.options.length - 1, step: 1,
    oninput: () => turned(spec.options[Number(slider.value)]), onchange: released });
  return { root: h("div", { class: kind }, h("label", { for: id }, h("span", {}, spec.label), output), slider), input: slider,
    show: (value) => {
      slider.value = String(Math.max(0, spec.options.indexOf(value)));
      output.textContent = told(value);
      slider.setAttribute("aria-valuetext", told(value));
    } };
}

let count = 0;
/**
 * The front end of one explorer, as anywidget and MyST's {anywidget} directive expect it.
 * draw(page, dials, data, shown) → {node, alt, told, note?, off?}: a picture, its alt text, a sentence, what cannot be turned now.
 * `shown` is what a kernel computed for exactly these dials, or null: then the recorded states are all there is.
 */
function explorer({ draw }) {
  function render({ model, el }) {
    const data = RECORDED, prefix = `s4d-${NAME}-${++count}`;
    const start = Object.fromEntries(data.dials.map((spec) => [spec.key, spec.value]));
    let dials = { ...start, ...(model.get("dials") ?? {}) };
    const live = Boolean(model.get("live"));
    const view = h("div", { class: "view" }), told = h("p", { class: "told", role: "status" }), note = h("p", { class: "note" });
    const released = () => { model.set("dials", dials); model.save_changes(); };
    const specs = data.dials.filter((spec) => live || !spec.live);
    const knobs = Object.fromEntries(specs.map((spec) => [spec.key, dial(spec, prefix, (value) => {
      dials = { ...dials, [spec.key]: value };
      show();
    }, released)]));
    // Keys belong to the dial that has the focus: to a notebook around it an arrow moves between cells, and d twice deletes one.
    const keep = (event) => { if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation(); };
    const root = h("section", { class: "s4d", role: "group", "aria-label": `Explorer: ${TITLE}`, onkeydown: keep }, h("style", {}, STYLE),
      h("p", { class: "title" }, TITLE), h("p", { class: "question" }, QUESTION),
      h("div", { class: "dials" }, Object.values(knobs).map((knob) => knob.root)), view, told, note);
    let width = 640;

    function show() {
      const answer = model.get("shown");
      const fresh = live && answer && JSON.stringify(answer.dials) === JSON.stringify(dials) ? answer : null;
      const page = { width, dark: root.hasAttribute("data-dark"), live };
      const drawn = draw(page, dials, data, fresh);
      drawn.node.setAttribute("role", "img");
      drawn.node.setAttribute("aria-label", drawn.alt);
      view.replaceChildren(drawn.node);
      if (told.textContent !== drawn.told) told.textContent = drawn.told;
      note.textContent = drawn.note ?? "";
      for (const spec of specs) {
        knobs[spec.key].show(dials[spec.key]);
        knobs[spec.key].input.disabled = Boolean(drawn.off?.includes(spec.key));
      }
    }

    function look() {
      const dark = isDark(el);
      if (dark !== root.hasAttribute("data-dark")) {
        root.toggleAttribute("data-dark", dark);
        show();
      }
    }

    const heard = () => { dials = { ...dials, ...model.get("dials") }; show(); };
    model.on("change:dials", heard);
    model.on("change:shown", show);
    el.append(root);
    root.toggleAttribute("data-dark", isDark(el));
    show();
    const resized = globalThis.ResizeObserver && new ResizeObserver(([entry]) => {
      const room = clamp(Math.floor(entry.contentRect.width), 260, 774);
      if (room !== width && entry.contentRect.width > 0) { width = room; show(); }
    });
    resized?.observe(view);
    const themed = globalThis.MutationObserver && new MutationObserver(look);
    for (const node of [document.documentElement, document.body]) {
      themed?.observe(node, { attributes: true, attributeFilter: ["class", "data-theme", "data-jp-theme-light"] });
    }
    const preference = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
    preference?.addEventListener?.("change", look);
    return () => {
      resized?.disconnect();
      themed?.disconnect();
      preference?.removeEventListener?.("change", look);
      model.off?.("change:dials", heard);
      model.off?.("change:shown", show);
    };
  }
  return { render };
}
