// The still at its apex beside one frame of a clip in which the same expression rises, holds and fades.

/** Place on the recorded sheet of a share of the apex, in the nearest sixth. */
function place(dials, data, share) {
  const patterns = data.patterns.length, step = Math.round(share * data.steps);
  const row = dials.person * (1 + patterns * data.steps);
  return step === 0 ? row : row + data.patterns.indexOf(dials.pattern) * data.steps + step;
}

/** The 68 points of face `index` as [x, y] in shares of the side. */
function pointsOf(packed, index) {
  const all = bytes(packed), start = index * 136;
  return Array.from({ length: 68 }, (_, k) => [all[start + 2 * k] / 255, all[start + 2 * k + 1] / 255]);
}

function draw(page, dials, data, shown) {
  const moving = dials.intensity * data.presence[dials.time];
  const [from, places] = shown ? [shown, [0, 1]] : [data, [place(dials, data, dials.intensity), place(dials, data, moving)]];
  const gap = 16, side = Math.min(280, Math.floor((page.width - gap) / 2)), head = 20;
  const panels = places.map((index, k) => {
    const x = k * (side + gap);
    const dots = dials.landmarks ? pointsOf(from.points, index).map(([px, py]) => h("circle", {
      cx: x + px * side, cy: head + py * side, r: 2.2, fill: PALETTE.pretrained, stroke: "#10304a", "stroke-width": 0.8 })) : [];
    return h("g", {}, words(x, 14, k ? `clip at ${(dials.time / data.fps).toFixed(2)} s` : "still: the apex", { class: "strong" }),
      cell(from.sheet, index, x, head, side), dots);
  });
  // Below them the share of the apex over the clip, with the apex of the still as a line.
  const top = head + side + 26, tall = 70, frames = data.presence.length;
  const at = scale([0, frames - 1], [34, Math.min(page.width, 2 * side + gap) - 12]), up = scale([0, 1], [top + tall, top]);
  const curve = data.presence.map((share, t) => `${at(t)},${up(share * dials.intensity)}`).join(" ");
  const chart = h("g", {}, words(0, top - 8, "share of the full pattern over the clip", { class: "small" }),
    [0, 1].map((value) => [h("line", { x1: at(0), x2: at(frames - 1), y1: up(value), y2: up(value), class: "faint" }),
      words(at(0) - 6, up(value) + 4, `${100 * value}`, { "text-anchor": "end", class: "small" })]),
    h("line", { x1: at(0), x2: at(frames - 1), y1: up(dials.intensity), y2: up(dials.intensity), stroke: PALETTE.image, "stroke-width": 2 }),
    h("polyline", { points: curve, fill: "none", stroke: page.dark ? PALETTE.pretrained : PALETTE.clip, "stroke-width": 2, "stroke-dasharray": "6 4" }),
    data.presence.map((share, t) => h("circle", { cx: at(t), cy: up(share * dials.intensity), r: t === dials.time ? 6 : 2.5, class: "mark" })),
    axis(page, at, top + tall + 4, [0, 5, 10], "", (t) => `${(t / data.fps).toFixed(1)} s`));
  const name = data.dials[1].labels[data.patterns.indexOf(dials.pattern)];
  const strong = data.presence.filter((share) => share >= 0.5).length;
  const told = `The still shows ${percent(dials.intensity)} of ${name}, this frame of the clip ${percent(moving)}; `
    + `${strong} of its ${frames} frames show half of the apex or more.`;
  return {
    node: picture(page, top + tall + 26, panels, chart), told,
    alt: `The same drawn face twice, as a still and as a frame of a clip at ${(dials.time / data.fps).toFixed(2)} s. ${told}`,
    note: page.live ? "The added units and other people are drawn by the kernel."
      : "Without a kernel: three people, one pattern at a time, in sixths of the apex.",
  };
}

export { place, pointsOf };
export default explorer({ draw });
