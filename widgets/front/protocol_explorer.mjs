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
