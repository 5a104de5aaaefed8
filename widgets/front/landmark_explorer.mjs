// 68 points of a face against the points of the same face at rest, and how far each part moved.

/** Points of face `index` as [x, y] in shares of the side. */
function pointsOf(packed, index) {
  const all = bytes(packed), start = index * 136;
  return Array.from({ length: 68 }, (_, k) => [all[start + 2 * k] / 255, all[start + 2 * k + 1] / 255]);
}

function place(dials, data, share = dials.share, turn = dials.turn) {
  const row = (dials.person * data.turns.length + data.turns.indexOf(turn)) * (1 + 2 * data.patterns.length);
  const step = data.shares.indexOf(share);
  return step === 0 ? row : row + 1 + 2 * data.patterns.indexOf(dials.pattern) + step - 1;
}

/** Mean movement of each part in percent of the distance between the eyes at rest. */
function movement(points, rest, parts) {
  const mean = (rows) => [0, 1].map((axis) => rows.reduce((sum, row) => sum + row[axis], 0) / rows.length);
  const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const between = apart(mean(rest.slice(36, 42)), mean(rest.slice(42, 48)));
  return Object.fromEntries(Object.entries(parts).map(([part, [first, last]]) => {
    let sum = 0;
    for (let k = first; k < last; k++) sum += apart(points[k], rest[k]);
    return [part, (100 * sum) / (last - first) / between];
  }));
}

function draw(page, dials, data) {
  const here = place(dials, data), points = pointsOf(data.points, here), rest = pointsOf(data.points, place(dials, data, 0, 0));
  const moved = movement(points, rest, data.parts);
  const narrow = page.width < 520, side = Math.min(340, narrow ? page.width : Math.floor(page.width * 0.48));
  const dark = page.dark && !dials.face;
  const face = [dials.face ? cell(data.sheet, here, 0, 0, side) : h("rect", { x: 0, y: 0, width: side, height: side, fill: "var(--soft)" }),
    dials.paths ? points.map(([x, y], k) => h("line", { x1: rest[k][0] * side, y1: rest[k][1] * side, x2: x * side, y2: y * side,
      stroke: dark ? "#ffffff" : "#1b1b1b", "stroke-width": 1.5 })) : null,
    points.map(([x, y]) => h("circle", { cx: x * side, cy: y * side, r: 3, fill: PALETTE.pretrained, stroke: "#10304a", "stroke-width": 1 }))];
  const left = narrow ? 0 : side + 20, top = narrow ? side + 14 : 6;
  const most = Math.max(30, Math.ceil(Math.max(...Object.values(moved)) / 10) * 10);
  const over = scale([0, most], [left + 52, page.width - 52]);
  const bars = [words(left, top + 10, "mean movement, % of the eye distance", { class: "small" })];
  Object.entries(moved).forEach(([part, value], k) => {
    const y = top + 26 + 30 * k;
    bars.push(words(left, y + 14, part), h("rect", { x: over(0), y, width: over(value) - over(0), height: 20, class: "mark" }),
      words(over(value) + 6, y + 14, `${value.toFixed(1)}`, { class: "small" }));
  });
  const [most_, amount] = Object.entries(moved).sort((a, b) => b[1] - a[1])[0];
  const turn = data.dials[3].labels[data.turns.indexOf(dials.turn)];
  const told = amount < 0.5 ? "The face at rest, looking ahead: nothing has moved."
    : `At ${percent(dials.share)} of apparent ${dials.pattern.toLowerCase()} and a turn of ${turn} the ${most_} ${most_.endsWith("s") ? "move" : "moves"} most, by ${amount.toFixed(1)} % of the distance between the eyes.`;
  return { node: picture(page, Math.max(side, top + 26 + 30 * 5) + 6, face, bars), told,
    alt: `A drawn face with 68 landmark points and a bar of movement for each part. ${told}`,
    note: "Movement is against the same face at rest, looking ahead. Points are recorded in steps of 1/255 of the picture." };
}

export { movement, place, pointsOf };
export default explorer({ draw });
