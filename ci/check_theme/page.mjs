// The live parts of a page of the check rendering: plotly figures, explorers, search, dark mode. No request leaves the site.
const up = document.body.dataset.up;
const root = document.documentElement;

// ── dark mode: the reader's choice, else the system's ────────────────────────
const button = document.getElementById("theme");
function paint(dark) {
  root.classList.toggle("dark", dark);
  button.setAttribute("aria-pressed", String(dark));
}
const kept = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
paint(kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
button.addEventListener("click", () => {
  paint(!root.classList.contains("dark"));
  try { localStorage.setItem("theme", root.classList.contains("dark") ? "dark" : "light"); } catch { /* private window */ }
});

// ── contents: folded on narrow screens ───────────────────────────────────────
if (innerWidth < 900) document.getElementById("contents").open = false;
else document.querySelector("nav.toc [aria-current]")?.scrollIntoView({ block: "nearest" });

// ── plotly ───────────────────────────────────────────────────────────────────
async function draw(place) {
  if (place.dataset.asked) return;
  place.dataset.asked = "true";
  const figure = JSON.parse(place.querySelector("script").textContent);
  const wanted = figure.layout?.width;
  const layout = { ...figure.layout, width: Math.min(wanted ?? Infinity, place.clientWidth) };
  delete layout.template?.layout?.mapbox;
  await Plotly.newPlot(place, figure.data, layout, { displayModeBar: false, responsive: !wanted });
  place.dataset.drawn = "true";
  if (wanted) addEventListener("resize", () => Plotly.relayout(place, { width: Math.min(wanted, place.clientWidth) }));
}
const figures = [...document.querySelectorAll("div.chart")];
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) { seen.unobserve(target); draw(target); }
  }
}, { rootMargin: "600px" });
function start() { figures.forEach((place) => seen.observe(place)); }
if (document.readyState === "complete") start(); else addEventListener("load", start);
// A folded cell has no width; its figures are drawn when it opens, which the observer sees by itself.
addEventListener("beforeprint", () => { // on paper nothing is folded and nothing waits
  for (const one of document.querySelectorAll("main details")) one.open = true;
  figures.forEach(draw);
});

// ── explorers: the model of a page without a kernel ──────────────────────────
function model(state) {
  const heard = new Map();
  return {
    get: (key) => state[key],
    set(key, value) { state[key] = value; for (const call of heard.get(`change:${key}`) ?? []) call(); },
    on(event, call) { heard.set(event, [...(heard.get(event) ?? []), call]); },
    off(event, call) { heard.set(event, (heard.get(event) ?? []).filter((one) => one !== call)); },
    save_changes() {},
  };
}
for (const place of document.querySelectorAll("div.anywidget")) {
  const module = await import(new URL(place.dataset.module, location.href));
  const el = place.attachShadow({ mode: "open" }).appendChild(document.createElement("div"));
  const given = model(JSON.parse(place.dataset.model));
  await module.default.initialize?.({ model: given });
  await module.default.render?.({ model: given, el });
  place.dataset.drawn = "true";
}

// ── search: every word of the question must begin a word of the record ───────
const field = document.getElementById("search"), found = document.getElementById("found");
let records = null;
const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
async function answer() {
  records ??= (await (await fetch(`${up}myst.search.json`)).json()).records;
  const asked = words(field.value);
  const places = records.map((record) => [record, words(Object.values(record.hierarchy).concat(record.content ?? "").join(" "))]);
  const hits = asked.length ? places.filter(([, has]) => asked.every((one) => has.some((word) => word.startsWith(one)))) : [];
  found.replaceChildren(...hits.slice(0, 8).map(([record]) => {
    const [path, anchor] = record.url.split("#");
    const link = Object.assign(document.createElement("a"), {
      href: up + (path === "/" ? "" : `${path.slice(1)}/`) + (anchor ? `#${anchor}` : ""),
      textContent: Object.values(record.hierarchy).filter(Boolean).join(" › ") });
    const row = document.createElement("li");
    row.append(link);
    return row;
  }));
  if (asked.length && !hits.length) found.append(Object.assign(document.createElement("li"), { textContent: "Nothing found." }));
}
field.addEventListener("input", answer);
field.form.addEventListener("submit", (event) => event.preventDefault());
root.dataset.ready = "true";
