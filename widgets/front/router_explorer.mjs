// The most chosen expert of every place on a face, and how the choices are shared among the experts.

/** Share of choices on each expert, the same over all classes, and shares by place, as recorded for these dials. */
function state(dials, data) {
  const run = data.runs[dials.seed], block = data.blocks.indexOf(dials.block), load = run.load[dials.modality];
  const every = load.all[block];
  const here = dials.label === "all" ? every : load.class[data.classes.indexOf(dials.label)][block];
  return { here, every, places: run.places[dials.modality].map((place) => place[block]) };
}

const best = (shares) => shares.indexOf(Math.max(...shares));

function draw(page, dials, data) {
  const { here, every, places } = state(dials, data), [t, rows, columns] = data.grids[dials.modality];
  const experts = here.length, slots = data.grids.clip[0], gap = 8, head = 18;
  const across = t === 1 ? 1 : page.width < 480 ? 2 : t;
  const side = Math.min(240, Math.floor((page.width - gap * (across - 1)) / across)), p = side / rows;
  const row = Math.max(0, data.classes.indexOf(dials.label)) * (1 + slots) + (dials.modality === "clip" ? 1 : 0);
  const faces = Array.from({ length: t }, (_, slot) => {
    const x = (slot % across) * (side + gap), y = Math.floor(slot / across) * (side + head + gap) + head;
    const tints = places.slice(slot * rows * columns, (slot + 1) * rows * columns).map((shares, place) => {
      const expert = best(shares), left = x + (place % columns) * p, top = y + Math.floor(place / columns) * p;
      const sure = clamp((shares[expert] - 1 / experts) / (1 - 1 / experts), 0, 1);
      const told = h("title", {}, shares.map((share, e) => `expert ${e}: ${percent(share)}`).join(", "));
      return h("g", {}, h("rect", { x: left, y: top, width: p, height: p, fill: EXPERTS[expert], "fill-opacity": 0.25 + 0.6 * sure,
        stroke: "#ffffff", "stroke-opacity": 0.5 }, told),
      h("circle", { cx: left + p / 2, cy: top + p / 2, r: 9, fill: "#ffffff", "fill-opacity": 0.85 }),
      words(left + p / 2, top + p / 2 + 4.5, String(expert), { "text-anchor": "middle", style: "fill: #1b1b1b; font-size: 12px" }));
    });
    return h("g", {}, words(x, y - 5, t === 1 ? "one still" : `slot ${slot + 1}`, { class: "small" }),
      cell(data.sheet, row + slot, x, y, side), dials.tint ? tints : []);
  });
  let y = Math.ceil(t / across) * (side + head + gap) + 12;
  const reach = Math.max(0.5, ...here, ...every);
  const over = scale([0, reach], [74, page.width - 56]);
  const bars = [words(0, y + 4, "share of choices (tick: over all classes)", { class: "small" })];
  y += 14;
  here.forEach((share, e) => {
    const top = y + 26 * e;
    bars.push(words(0, top + 15, `expert ${e}`), h("rect", { x: over(0), y: top + 3, width: over(share) - over(0), height: 16,
      fill: EXPERTS[e % EXPERTS.length], stroke: "var(--ink)", "stroke-width": 0.75 }),
    h("line", { x1: over(every[e]), x2: over(every[e]), y1: top, y2: top + 22, stroke: "var(--ink)", "stroke-width": 2.5 }),
    words(page.width, top + 15, percent(share, 1), { "text-anchor": "end", class: "small" }));
  });
  bars.push(h("line", { x1: over(1 / experts), x2: over(1 / experts), y1: y, y2: y + 26 * experts, class: "line", "stroke-dasharray": "2 4" }));
  const what = dials.modality === "clip" ? "clips" : "stills", top = best(here);
  const info = data.runs[dials.seed].information, at = data.blocks.indexOf(dials.block);
  const facts = { class: info[`class, ${dials.modality}s`][at], modality: info.modality[at] };
  const says = (fact) => `${fact.bits.toFixed(3)} bits (shuffled labels: up to ${fact.high.toFixed(3)})`;
  const told = `Block ${dials.block}, ${what}${dials.label === "all" ? "" : ` labelled ${dials.label}`}: expert ${top} takes ${percent(here[top])} of the choices`
    + `${dials.label === "all" ? "" : `, at most ${(100 * Math.max(...here.map((share, e) => Math.abs(share - every[e])))).toFixed(1)} points from all classes together`}`
    + `. At single places an expert takes up to ${percent(Math.max(...places.flat()))}.`;
  return { node: picture(page, y + 26 * experts + 6, faces, bars), told,
    alt: `${t === 1 ? "A drawn face" : `A drawn clip in ${t} slots`} with the most chosen of ${experts} experts at each place. ${told}`,
    note: `What the expert of this block says of the class: ${says(facts.class)}; of the modality: ${says(facts.modality)}. The dotted line is an even share. Places are over all classes; the face only shows where a place is.` };
}

export { best, state };
export default explorer({ draw });
