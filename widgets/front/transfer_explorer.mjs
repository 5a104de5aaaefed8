// Recorded differences between two ways of training, one dot a cell; dials narrow the cells, nothing is interpolated.

/** Whether each cell holds the pair and agrees with every dial that is not "any". */
function matching(dials, data) {
  const asked = Object.keys(data.names).filter((key) => key in dials && dials[key] !== "any");
  return data.cells.map((one) => dials.pair in one.differences && asked.every((key) => one.factors[key] === dials[key]));
}

/** Of the matching cells: how many, how many below zero, mean, lowest, highest. */
function summary(dials, data) {
  const fits = matching(dials, data);
  const found = data.cells.filter((_, place) => fits[place]).map((one) => one.differences[dials.pair].value);
  return { count: found.length, below: found.filter((value) => value < 0).length,
    mean: found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : null,
    low: found.length ? Math.min(...found) : null, high: found.length ? Math.max(...found) : null };
}

/** Heights for dots at sorted places so that none overlaps another: 0, 1, −1, 2, −2 … */
function swarm(places, apart) {
  const taken = [];
  return places.map((x) => {
    for (let step = 0; ; step++) {
      const level = step % 2 ? (step + 1) / 2 : -step / 2;
      if (!taken.some((other) => other.level === level && Math.abs(other.x - x) < apart)) {
        taken.push({ x, level });
        return level;
      }
    }
  });
}

function draw(page, dials, data) {
  const fits = matching(dials, data), found = summary(dials, data);
  const all = data.cells.filter((one) => dials.pair in one.differences);
  // The dots set the scale; an interval of few seeds may leave the picture on either side.
  const reach = Math.max(1, Math.ceil(Math.max(0, ...all.map((one) => 1.15 * Math.abs(one.differences[dials.pair].value))) / 10)) * 10;
  const ticks = [-reach, -reach / 2, 0, reach / 2, reach];
  const at = scale([-reach, reach], [14, page.width - 14]), parts = [];
  let y = 0;
  for (const study of data.studies) {
    const rows = data.cells.map((one, place) => ({ ...one, fits: fits[place] }))
      .filter((one) => one.study === study && dials.pair in one.differences)
      .map((one) => ({ ...one, found: one.differences[dials.pair] })).sort((a, b) => a.found.value - b.found.value);
    if (!rows.length) continue;
    const levels = swarm(rows.map((one) => at(one.found.value)), 13), tall = 13 * (Math.max(...levels) - Math.min(...levels)) + 22;
    const middle = y + 20 + 11 + 13 * Math.max(...levels.map((level) => -level), 0);
    parts.push(words(0, y + 13, `${study}: ${rows.length} ${rows.length === 1 ? "cell" : "cells"}`, { class: "small" }));
    for (const pass of [false, true]) rows.forEach((one, k) => {
      if (one.fits !== pass) return;
      const cx = at(one.found.value), cy = middle + 13 * levels[k];
      const told = Object.entries(one.factors).map(([key, value]) => `${data.names[key] ?? key}: ${value}`).join("; ");
      if (pass && one.found.low !== null) parts.push(h("line", { x1: at(Math.max(-reach, one.found.low)), x2: at(Math.min(reach, one.found.high)), y1: cy, y2: cy, class: "line" }));
      parts.push(h("circle", { cx, cy, r: pass ? 6 : 4.5, fill: pass ? (page.dark ? PALETTE.pretrained : PALETTE.clip) : "none",
        stroke: pass ? (page.dark ? "#0b2233" : "#ffffff") : "var(--line)", "stroke-width": 1 }, h("title", {}, `${signed(one.found.value)} points. ${told}`)));
    });
    y += 20 + tall;
  }
  const bottom = y + 4;
  parts.unshift(h("line", { x1: at(0), x2: at(0), y1: 0, y2: bottom, stroke: PALETTE.scratch, "stroke-width": 2, "stroke-dasharray": "5 4" }));
  if (found.count) parts.push(h("path", { d: `M ${at(found.mean)} ${bottom} l -7 10 h 14 z`, fill: "var(--ink)" }));
  parts.push(axis(page, at, bottom + 12, ticks, "points of DFER WAR", (tick) => tick === 0 ? "0" : signed(tick, 0)));
  y = bottom + 70;
  const effects = data.effects[dials.pair] ?? [];
  if (effects.length) {
    const label = page.width < 480 ? 150 : 210, far = Math.max(1, ...effects.flatMap((e) => [e.value, e.low ?? e.value, e.high ?? e.value].map(Math.abs)));
    const over = scale([-far, far], [label + 10, page.width - 52]);
    parts.push(words(0, y, "main effect of each dial, low → high (screening)", { class: "small" }));
    effects.forEach((effect, k) => {
      const line = y + 22 + 22 * k, turned = dials[effect.name] !== undefined && dials[effect.name] !== "any";
      parts.push(words(0, line + 4, data.names[effect.name], turned ? { class: "strong" } : {}),
        effect.low === null ? null : h("line", { x1: over(effect.low), x2: over(effect.high), y1: line, y2: line, class: "line" }),
        h("line", { x1: over(0), x2: over(0), y1: line - 11, y2: line + 11, class: "faint" }),
        h("circle", { cx: over(effect.value), cy: line, r: 5, fill: "var(--ink)" }),
        words(page.width, line + 4, signed(effect.value), { "text-anchor": "end", class: "small" }));
    });
    y += 22 + 22 * effects.length;
  }
  const told = found.count ? `${found.count} of ${all.length} recorded cells match: ${signed(found.mean)} points on average, from ${signed(found.low)} to ${signed(found.high)}; ${found.below} below zero.`
    : "No recorded cell has all these settings. Set a dial back to any.";
  const fewest = Math.min(...all.map((one) => one.differences[dials.pair].seeds));
  return { node: picture(page, y + 6, parts), told,
    alt: `Dots of recorded differences in points of DFER WAR, a row a study, beside a line at zero. ${told}`,
    note: `Each dot is a trained and recorded cell${fewest === 1 ? ", some from one seed, so that chance alone moves a dot by points" : ""}; a line is a 95 % interval, the triangle the mean of the matching cells.` };
}

export { matching, summary, swarm };
export default explorer({ draw });
