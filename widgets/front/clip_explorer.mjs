// The sixteen frames that a rule takes: on the video's line, and as the pictures the model gets.

/** How many different frames, how many repeats, and the frames from the first to the last taken. */
function facts(taken) {
  const different = new Set(taken).size;
  return { different, repeats: taken.length - different, span: Math.max(...taken) - Math.min(...taken) + 1 };
}

function draw(page, dials, data) {
  const random = data.random.includes(dials.rule);
  const taken = data.table[`${dials.rule} ${dials.length} ${dials.stride} ${dials.draw}`], found = facts(taken);
  const at = scale([0, Math.max(1, dials.length - 1)], [10, page.width - 10]), times = new Map();
  for (const frame of taken) times.set(frame, (times.get(frame) ?? 0) + 1);
  const y = 44, parts = [words(0, 13, `the video: ${dials.length} frames, ${(dials.length / data.fps).toFixed(2)} s`, { class: "small" }),
    h("line", { x1: at(0), x2: at(dials.length - 1), y1: y, y2: y, class: "line" })];
  for (let frame = 0; frame < dials.length; frame++) {
    const often = times.get(frame) ?? 0;
    parts.push(often ? h("circle", { cx: at(frame), cy: y, r: often > 1 ? 6 : 4.5, fill: often > 1 ? PALETTE.image : "var(--mark)",
      stroke: "var(--ink)", "stroke-width": often > 1 ? 1.5 : 0 }) : h("circle", { cx: at(frame), cy: y, r: 1.2, fill: "var(--line)" }));
    if (often > 1) parts.push(words(clamp(at(frame), 16, page.width - 16), y - 11, `×${often}`, { "text-anchor": "middle", class: "strong" }));
  }
  const ticks = [0, Math.round((dials.length - 1) / 2), dials.length - 1];
  parts.push(axis(page, at, y + 14, ticks, "frame"));
  const across = page.width < 480 ? 4 : 8, gap = 6, side = Math.floor((page.width - gap * (across - 1)) / across), head = 17, top = y + 66;
  taken.forEach((frame, k) => {
    const x = (k % across) * (side + gap), down = top + Math.floor(k / across) * (side + head + gap), again = taken.indexOf(frame) < k;
    parts.push(words(x, down + 12, again ? `${frame} again` : `frame ${frame}`, { class: "small" }), cell(data.sheet, frame, x, down + head, side),
      again ? h("rect", { x: x + 1.5, y: down + head + 1.5, width: side - 3, height: side - 3, fill: "none", stroke: PALETTE.image,
        "stroke-width": 3, "stroke-dasharray": "6 4" }) : null);
  });
  const rule = data.dials[0].labels[data.dials[0].options.indexOf(dials.rule)];
  const told = `${taken.length} frames from ${dials.length} (${rule}): ${found.different} different ones${found.repeats ? `, ${found.repeats} taken again` : ""}, `
    + `over ${(found.span / data.fps).toFixed(2)} s, from frame ${Math.min(...taken)} to ${Math.max(...taken)}.`;
  return { node: picture(page, top + Math.ceil(taken.length / across) * (side + head + gap), parts), told, off: random ? [] : ["draw"],
    alt: `A line of ${dials.length} frames with those taken marked, and the ${taken.length} pictures in order. ${told}`,
    note: random ? "The start is random: turn Draw to see others." : "This rule leaves nothing to chance." };
}

export { facts };
export default explorer({ draw });
