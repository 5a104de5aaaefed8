// Written by `python -m widgets` from front/shared.mjs and front/protocol_explorer.mjs; edit those.
const NAME = "protocol_explorer";
const TITLE = "The protocol is part of the score";
const QUESTION = "Which choices move the score of one frozen model, and by how much?";
const PALETTE = {"image": "#E69F00", "clip": "#0072B2", "joint": "#009E73", "moae": "#CC79A7", "hidden": "#B0B0B0", "visible": "#222222", "floor": "#7F7F7F", "scratch": "#D55E00", "pretrained": "#56B4E9"};
const EXPERTS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"];
const RECORDED = {"dials":[{"key":"metric","label":"Score","kind":"choice","options":["war","uar"],"value":"war","labels":["WAR","UAR"]},{"key":"family","label":"What is chosen","kind":"choice","options":["windows and views","order of frames","cropping","picture quality","colour and range","labels","short videos"],"value":"windows and views"},{"key":"choice","label":"Choice","kind":"steps","options":[0,1,2,3,4,5,6,7,8],"value":0,"labels":["1","2","3","4","5","6","7","8","9"]},{"key":"rule","label":"Rule for the epoch","kind":"choice","options":["best","last","half"],"value":"best","labels":["best on validation","last epoch","epoch at half time"]}],"groups":{"windows and views":["stride 1","stride 4","8 frames spread over the clip","first window only","last window only","middle window only","four windows","training rule, middle","training rule, random"],"order of frames":["names sorted as text","played backwards","frames shuffled","first frame, repeated","middle frame, repeated","last frame, repeated","middle frame, image head"],"cropping":["middle 75 % of the frame","margin of 1/6 on every side","too wide (4:3), squeezed","box 6 px (9 %) too far left","box trembles by up to 3 px","the face's own box, margin 15 %"],"picture quality":["JPEG quality 95","JPEG quality 30","saved at 32 px, enlarged","saved at 24 px, enlarged","resized without antialiasing"],"colour and range":["blue, green, red","not normalised, 0 to 1","normalised to −1 … 1"],"labels":["labels in AffectNet-7 order","labels in FERV39K order","labels in RAF-DB order"],"short videos":["cut to 9 frames, last held","9 frames: pad with the first frame","9 frames: pad by starting again","9 frames: training rule for short clips","9 frames: stretch over the 9 frames"]},"effects":{"stride 1":{"war":{"value":-9.4,"low":-12.0,"high":-6.8},"uar":{"value":-10.9,"low":-14.15,"high":-7.63}},"stride 4":{"war":{"value":-2.9,"low":-5.7,"high":-0.2},"uar":{"value":-2.98,"low":-6.46,"high":0.14}},"8 frames spread over the clip":{"war":{"value":-0.8,"low":-2.7,"high":1.1},"uar":{"value":-1.36,"low":-3.75,"high":0.9}},"first window only":{"war":{"value":-4.3,"low":-6.2,"high":-2.4},"uar":{"value":-3.34,"low":-5.89,"high":-0.77}},"last window only":{"war":{"value":0.7,"low":-1.1,"high":2.4},"uar":{"value":0.23,"low":-1.86,"high":2.07}},"middle window only":{"war":{"value":-0.2,"low":-1.7,"high":1.3},"uar":{"value":0.35,"low":-1.61,"high":2.3}},"four windows":{"war":{"value":0.1,"low":-0.9,"high":1.1},"uar":{"value":0.95,"low":-0.46,"high":2.63}},"training rule, middle":{"war":{"value":0.2,"low":-1.4,"high":1.7},"uar":{"value":0.46,"low":-1.64,"high":2.52}},"training rule, random":{"war":{"value":-0.4,"low":-2.3,"high":1.3},"uar":{"value":-0.52,"low":-2.81,"high":1.69}},"names sorted as text":{"war":{"value":-12.3,"low":-15.1,"high":-9.6},"uar":{"value":-12.53,"low":-15.97,"high":-9.28}},"played backwards":{"war":{"value":-18.3,"low":-21.5,"high":-15.4},"uar":{"value":-18.23,"low":-22.11,"high":-14.43}},"frames shuffled":{"war":{"value":-9.8,"low":-12.4,"high":-7.3},"uar":{"value":-9.45,"low":-12.73,"high":-6.08}},"first frame, repeated":{"war":{"value":-38.1,"low":-41.8,"high":-34.5},"uar":{"value":-38.77,"low":-43.23,"high":-34.32}},"middle frame, repeated":{"war":{"value":-9.5,"low":-12.3,"high":-6.8},"uar":{"value":-8.93,"low":-12.38,"high":-5.48}},"last frame, repeated":{"war":{"value":-16.4,"low":-19.8,"high":-13.1},"uar":{"value":-18.91,"low":-22.64,"high":-15.2}},"middle frame, image head":{"war":{"value":-10.4,"low":-13.4,"high":-7.6},"uar":{"value":-8.22,"low":-12.18,"high":-4.6}},"middle 75 % of the frame":{"war":{"value":1.0,"low":-1.9,"high":3.9},"uar":{"value":3.39,"low":-0.26,"high":7.12}},"margin of 1/6 on every side":{"war":{"value":-24.2,"low":-28.0,"high":-20.8},"uar":{"value":-25.74,"low":-30.01,"high":-21.38}},"too wide (4:3), squeezed":{"war":{"value":-7.7,"low":-10.3,"high":-5.0},"uar":{"value":-10.15,"low":-13.74,"high":-6.55}},"box 6 px (9 %) too far left":{"war":{"value":-2.8,"low":-5.4,"high":-0.2},"uar":{"value":-2.79,"low":-6.17,"high":0.66}},"box trembles by up to 3 px":{"war":{"value":-3.0,"low":-5.8,"high":-0.4},"uar":{"value":-3.03,"low":-6.51,"high":0.23}},"JPEG quality 95":{"war":{"value":0.4,"low":-0.2,"high":1.0},"uar":{"value":0.7,"low":-0.07,"high":1.75}},"JPEG quality 30":{"war":{"value":-1.7,"low":-3.3,"high":-0.2},"uar":{"value":-1.68,"low":-3.8,"high":0.4}},"saved at 32 px, enlarged":{"war":{"value":-1.1,"low":-3.1,"high":0.9},"uar":{"value":-1.92,"low":-4.51,"high":0.54}},"saved at 24 px, enlarged":{"war":{"value":-5.5,"low":-8.1,"high":-2.9},"uar":{"value":-6.21,"low":-9.49,"high":-2.88}},"resized without antialiasing":{"war":{"value":0.0,"low":-1.0,"high":1.0},"uar":{"value":0.02,"low":-0.91,"high":0.93}},"blue, green, red":{"war":{"value":-17.8,"low":-20.9,"high":-14.8},"uar":{"value":-17.2,"low":-21.17,"high":-13.39}},"not normalised, 0 to 1":{"war":{"value":-52.1,"low":-55.4,"high":-48.7},"uar":{"value":-55.76,"low":-59.56,"high":-51.82}},"normalised to −1 … 1":{"war":{"value":-29.2,"low":-32.6,"high":-25.8},"uar":{"value":-29.42,"low":-33.17,"high":-25.65}},"the face's own box, margin 15 %":{"war":{"value":-1.2,"low":-3.9,"high":1.4},"uar":{"value":-3.67,"low":-7.14,"high":-0.26}},"labels in AffectNet-7 order":{"war":{"value":-68.4,"low":-71.8,"high":-64.8},"uar":{"value":-61.02,"low":-64.14,"high":-57.87}},"labels in FERV39K order":{"war":{"value":-71.3,"low":-74.7,"high":-67.9},"uar":{"value":-68.05,"low":-72.24,"high":-63.84}},"labels in RAF-DB order":{"war":{"value":-72.1,"low":-75.5,"high":-68.8},"uar":{"value":-68.42,"low":-72.64,"high":-64.2}},"cut to 9 frames, last held":{"war":{"value":-0.2,"low":-2.4,"high":1.9},"uar":{"value":0.9,"low":-1.71,"high":3.54}},"9 frames: pad with the first frame":{"war":{"value":-22.5,"low":-26.1,"high":-19.1},"uar":{"value":-23.61,"low":-27.72,"high":-19.54}},"9 frames: pad by starting again":{"war":{"value":-15.6,"low":-18.7,"high":-12.6},"uar":{"value":-15.39,"low":-19.14,"high":-11.69}},"9 frames: training rule for short clips":{"war":{"value":-0.2,"low":-1.3,"high":0.8},"uar":{"value":-0.16,"low":-1.46,"high":1.23}},"9 frames: stretch over the 9 frames":{"war":{"value":-2.5,"low":-4.7,"high":-0.2},"uar":{"value":-2.74,"low":-5.29,"high":-0.14}}},"epochs":[{"epoch":3,"clip_war":39.5,"clip_uar":37.09,"image_war":55.42,"image_uar":47.89},{"epoch":6,"clip_war":52.5,"clip_uar":42.97,"image_war":54.17,"image_uar":47.2},{"epoch":9,"clip_war":57.5,"clip_uar":48.23,"image_war":67.92,"image_uar":61.84},{"epoch":12,"clip_war":67.0,"clip_uar":59.44,"image_war":75.83,"image_uar":73.88},{"epoch":15,"clip_war":68.0,"clip_uar":57.74,"image_war":74.17,"image_uar":71.73},{"epoch":18,"clip_war":74.5,"clip_uar":69.96,"image_war":78.33,"image_uar":75.86},{"epoch":21,"clip_war":77.5,"clip_uar":70.33,"image_war":80.83,"image_uar":77.79},{"epoch":24,"clip_war":76.5,"clip_uar":72.64,"image_war":82.92,"image_uar":79.85},{"epoch":27,"clip_war":75.0,"clip_uar":68.74,"image_war":82.92,"image_uar":80.73},{"epoch":30,"clip_war":79.5,"clip_uar":77.11,"image_war":82.5,"image_uar":79.52},{"epoch":33,"clip_war":78.5,"clip_uar":74.65,"image_war":85.0,"image_uar":82.06},{"epoch":36,"clip_war":79.5,"clip_uar":78.16,"image_war":83.75,"image_uar":80.63},{"epoch":39,"clip_war":79.0,"clip_uar":76.22,"image_war":84.17,"image_uar":80.97},{"epoch":40,"clip_war":79.0,"clip_uar":76.22,"image_war":84.17,"image_uar":80.97}],"clips":1000,"people":250,"reference":{"war":75.1,"uar":72.1},"made_from":{"protocol_choices":"2c92c855930b8a5f","shipped_classifier":"b926140eb8a3b5fe"}};

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

// Differences that choices of protocol make to one frozen model, and which epoch a rule takes.

/** Name of the choice, score under it, and its difference with interval. */
function chosen(dials, data) {
  const names = data.groups[dials.family], name = names[Math.min(dials.choice, names.length - 1)];
  const effect = data.effects[name][dials.metric];
  return { name, score: data.reference[dials.metric] + effect.value, effect };
}

/** The row of the history that a rule takes; the first of equals. */
function epochOf(dials, data) {
  const key = `clip_${dials.metric}`, rows = data.epochs;
  if (dials.rule === "best") return rows.reduce((best, row) => (row[key] > best[key] ? row : best));
  return dials.rule === "last" ? rows[rows.length - 1] : rows[Math.floor(rows.length / 2)];
}

function draw(page, dials, data) {
  const names = data.groups[dials.family], found = chosen(dials, data), metric = dials.metric.toUpperCase(), parts = [];
  const rows = names.map((name) => data.effects[name][dials.metric]);
  const low = Math.floor(Math.min(-2, ...rows.map((row) => row.low)) / 2) * 2, high = Math.ceil(Math.max(2, ...rows.map((row) => row.high)) / 2) * 2;
  const at = scale([low, high], [16, page.width - 62]), tall = 38;
  parts.push(words(0, 13, `difference to ${data.reference[dials.metric].toFixed(1)} % ${metric}, in points`, { class: "small" }));
  names.forEach((name, k) => {
    const row = rows[k], y = 40 + tall * k, clear = row.high < 0 || row.low > 0, is = name === found.name;
    if (is) parts.push(h("rect", { x: 0, y: y - 19, width: page.width, height: tall - 2, rx: 4, fill: "var(--soft)", stroke: "var(--line)" }));
    parts.push(words(6, y - 4, name, is ? { class: "strong" } : {}), words(page.width - 6, y + 9, signed(row.value), { "text-anchor": "end", class: is ? "strong" : "small" }),
      h("line", { x1: at(row.low), x2: at(row.high), y1: y + 8, y2: y + 8, stroke: "var(--ink)", "stroke-width": 2 }),
      h("circle", { cx: at(row.value), cy: y + 8, r: 5, fill: clear ? "var(--mark)" : "var(--paper)", stroke: "var(--mark)", "stroke-width": 2 }));
  });
  const bottom = 40 + tall * names.length - 12;
  parts.splice(1, 0, h("line", { x1: at(0), x2: at(0), y1: 20, y2: bottom, stroke: PALETTE.scratch, "stroke-width": 2, "stroke-dasharray": "5 4" }));
  parts.push(axis(page, at, bottom + 4, [low, 0, high], "", (tick) => (tick ? signed(tick, 0) : "0")));
  // The rule for the epoch, on another record: the shipped classifier's own validation.
  const top = bottom + 52, deep = 90, epochs = data.epochs, key = `clip_${dials.metric}`, taken = epochOf(dials, data);
  const x = scale([epochs[0].epoch, epochs[epochs.length - 1].epoch], [34, page.width - 16]);
  const scores = epochs.map((row) => row[key]), y = scale([Math.min(...scores) - 2, Math.max(...scores) + 2], [top + deep, top]);
  parts.push(words(0, top - 10, `clips, ${metric} on validation by epoch`, { class: "small" }),
    [Math.min(...scores), Math.max(...scores)].map((value) => words(28, y(value) + 4, value.toFixed(0), { "text-anchor": "end", class: "small" })),
    h("polyline", { points: epochs.map((row) => `${x(row.epoch)},${y(row[key])}`).join(" "), fill: "none", stroke: "var(--mark)", "stroke-width": 2 }),
    epochs.map((row) => h("circle", { cx: x(row.epoch), cy: y(row[key]), r: 3, class: "mark" })),
    h("circle", { cx: x(taken.epoch), cy: y(taken[key]), r: 9, fill: "none", stroke: PALETTE.scratch, "stroke-width": 3 }),
    axis(page, x, top + deep + 6, [epochs[0].epoch, taken.epoch, epochs[epochs.length - 1].epoch].filter((e, k, all) => all.indexOf(e) === k && (k !== 1 || Math.min(Math.abs(x(e) - x(all[0])), Math.abs(x(e) - x(all[2] ?? all[0]))) > 24)), "epoch"));
  const clear = found.effect.high < 0 || found.effect.low > 0;
  const told = `${found.name}: ${metric} ${found.score.toFixed(1)} % instead of ${data.reference[dials.metric].toFixed(1)} %, ${signed(found.effect.value)} points [${signed(found.effect.low)}, ${signed(found.effect.high)}], `
    + `${clear ? "an interval that excludes 0" : "which may be chance"}. Epoch ${taken.epoch} has ${taken[key].toFixed(1)} % on validation.`;
  return { node: picture(page, top + deep + 48, parts), told,
    alt: `Dots with 95 % intervals for ${names.length} choices of ${dials.family} beside a line at zero, and a curve of ${metric} over epochs with a ring at epoch ${taken.epoch}. ${told}`,
    note: `Frozen classifier, ${data.clips} drawn clips of ${data.people} people, 95 % intervals over people, uncorrected. One test list: folds are not varied here. The curve is that of the shipped classifier.` };
}

export { chosen, epochOf };
export default explorer({ draw });
