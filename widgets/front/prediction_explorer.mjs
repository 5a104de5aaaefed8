// Probabilities of apparent expressions over a film; a moment of it, and the silences of a threshold.

/** Share of the windows with an answer, and of those the share that is right. */
function facts(dials, data) {
  const rows = data.smoothed[smoothing(dials)];
  const given = rows.map((row) => Math.max(...row) >= 100 * dials.threshold), top = rows.map((row) => row.indexOf(Math.max(...row)));
  const answered = given.filter(Boolean).length;
  const right = given.filter((is, k) => is && data.classes[top[k]] === data.truth[k]).length;
  return { answered: answered / rows.length, right: answered ? right / answered : 0, given, top };
}

/** The key of a reach as Python writes it: 1 is "1.0". */
const smoothing = (dials) => (Number.isInteger(dials.smooth) ? dials.smooth.toFixed(1) : String(dials.smooth));

function draw(page, dials, data) {
  const rows = data.smoothed[smoothing(dials)], found = facts(dials, data), now = dials.window, row = rows[now], parts = [];
  const side = page.width < 480 ? 120 : 170, seconds = data.seconds[now];
  parts.push(words(0, 14, `${seconds.toFixed(2)} s`, { class: "strong" }), cell(data.sheet, now, 0, 22, side));
  const left = side + 16, over = scale([0, 100], [left + 76, page.width - 44]), step = Math.floor(side / data.classes.length);
  const order = data.classes.map((_, k) => k);
  order.forEach((k, place) => {
    const y = 22 + place * step, is = found.given[now] && k === found.top[now];
    parts.push(words(left, y + step / 2 + 4, data.classes[k], is ? { class: "strong" } : {}),
      h("rect", { x: over(0), y: y + 2, width: Math.max(0, over(row[k]) - over(0)), height: step - 5, fill: data.colours[data.classes[k]], stroke: "var(--ink)", "stroke-width": 0.75 }),
      words(page.width, y + step / 2 + 4, `${row[k].toFixed(0)} %`, { "text-anchor": "end", class: "small" }));
  });
  if (dials.threshold > 0) parts.push(h("line", { x1: over(100 * dials.threshold), x2: over(100 * dials.threshold), y1: 20, y2: 22 + side, stroke: "var(--ink)", "stroke-dasharray": "3 3", "stroke-width": 1.5 }));
  // Filmstrip, then the highest probability over time, then bands of the answer and of the truth.
  const at = scale([0, data.duration], [52, page.width - 6]), strip = 22 + side + 16, count = Math.max(4, Math.floor((page.width - 58) / 58)), small = (page.width - 58) / count;
  for (let k = 0; k < count; k++) {
    const second = ((k + 0.5) / count) * data.duration;
    const nearest = data.seconds.reduce((best, value, place) => (Math.abs(value - second) < Math.abs(data.seconds[best] - second) ? place : best), 0);
    parts.push(cell(data.sheet, nearest, 52 + k * small, strip, small - 2));
  }
  const top = strip + small + 10, deep = 70, up = scale([0, 100], [top + deep, top]);
  parts.push(words(46, top + 10, "100 %", { "text-anchor": "end", class: "small" }), words(46, top + deep, "0 %", { "text-anchor": "end", class: "small" }),
    h("line", { x1: at(0), x2: at(data.duration), y1: up(0), y2: up(0), class: "faint" }), h("line", { x1: at(0), x2: at(data.duration), y1: up(100), y2: up(100), class: "faint" }),
    h("polyline", { points: rows.map((one, k) => `${at(data.seconds[k])},${up(Math.max(...one))}`).join(" "), fill: "none", stroke: "var(--mark)", "stroke-width": 2 }),
    dials.threshold > 0 ? h("line", { x1: at(0), x2: at(data.duration), y1: up(100 * dials.threshold), y2: up(100 * dials.threshold), stroke: "var(--ink)", "stroke-dasharray": "3 3" }) : null);
  const bands = [["answer", found.top.map((k, w) => (found.given[w] ? data.classes[k] : null))], ["truth", data.truth]];
  bands.forEach(([title, names], place) => {
    const y = top + deep + 12 + 34 * place;
    parts.push(words(46, y + 16, title, { "text-anchor": "end", class: "small" }));
    for (let from = 0; from < names.length;) {
      let to = from;
      while (to + 1 < names.length && names[to + 1] === names[from]) to++;
      const edge = (k) => (k <= 0 ? 0 : k >= names.length ? data.duration : (data.seconds[k - 1] + data.seconds[k]) / 2);
      const x = at(edge(from)), wide = at(edge(to + 1)) - x, name = names[from];
      if (name) {
        parts.push(h("rect", { x, y, width: wide, height: 26, fill: data.colours[name], stroke: "var(--paper)" }, h("title", {}, name)));
        if (wide > 24) parts.push(words(x + wide / 2, y + 17, wide > 66 ? name : name.slice(0, 2), { "text-anchor": "middle", style: `fill: ${["Sadness"].includes(name) ? "#ffffff" : "#111111"}; font-size: 12px` }));
      } else parts.push(h("rect", { x, y, width: wide, height: 26, fill: "none", class: "faint", "stroke-dasharray": "3 3" }));
      from = to + 1;
    }
  });
  const bottom = top + deep + 12 + 34 * 2;
  parts.push(h("line", { x1: at(seconds), x2: at(seconds), y1: strip - 4, y2: bottom - 4, stroke: "var(--ink)", "stroke-width": 2 }),
    axis(page, at, bottom, [0, Math.floor(data.duration / 2), Math.floor(data.duration)], "", (tick) => `${tick} s`));
  const says = found.given[now] ? `says ${data.classes[found.top[now]]} with ${row[found.top[now]].toFixed(0)} %` : `is silent (highest: ${Math.max(...row).toFixed(0)} %)`;
  const told = `At ${seconds.toFixed(2)} s the classifier ${says}; drawn is ${data.truth[now]}. Over the film it answers ${percent(found.answered)} of the windows, ${percent(found.right)} of those as drawn.`;
  return { node: picture(page, bottom + 24, parts), told,
    alt: `A frame of a drawn film with the probability of each apparent expression, a filmstrip, and bands of answers and of what was drawn over ${data.duration.toFixed(0)} seconds. ${told}`,
    note: "Names are apparent expressions on a drawn face. Dashed gaps: no answer. The windows were recorded with the shipped classifier; two letters stand for a name where room is short." };
}

export { facts };
export default explorer({ draw });
