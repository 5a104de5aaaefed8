// Which tokens a mask leaves, and how many of the hidden ones lie beside a visible copy of themselves in time.

/** Mask of the dials as a list of booleans, true = hidden. */
function mask(dials, data) {
  const what = dials.what, [t, rows, columns] = data.grids[what];
  const packed = bytes(data.masks[`${what} ${dials.kind} ${dials.ratio} ${dials.seed}`]);
  return Array.from({ length: t * rows * columns }, (_, n) => Boolean((packed[n >> 3] >> (7 - (n & 7))) & 1));
}

/** Hidden tokens, and those of them that are visible at the same place in the slot before or after. */
function counts(hidden, [t, rows, columns]) {
  const places = rows * columns;
  const copied = hidden.map((is, n) => is && ((n >= places && !hidden[n - places]) || (n + places < t * places && !hidden[n + places])));
  return { hidden: hidden.filter(Boolean).length, copyable: copied.filter(Boolean).length, copied };
}

function draw(page, dials, data) {
  const still = dials.what === "image";
  if (still) dials = { ...dials, kind: "random" };
  const grid = data.grids[dials.what], [t, rows, columns] = grid;
  const hidden = mask(dials, data), found = counts(hidden, grid);
  const across = still ? 1 : page.width < 480 ? 2 : 4, gap = 8, head = 18;
  const side = Math.min(still ? 300 : 240, Math.floor((page.width - gap * (across - 1)) / across));
  const slots = Array.from({ length: t }, (_, slot) => {
    const x = (slot % across) * (side + gap), y = Math.floor(slot / across) * (side + head + gap) + head, p = side / rows;
    const covers = [];
    for (let place = 0; place < rows * columns; place++) {
      const n = slot * rows * columns + place;
      if (!hidden[n]) continue;
      const left = x + (place % columns) * p, top = y + Math.floor(place / columns) * p;
      covers.push(h("rect", { x: left, y: top, width: p + 0.3, height: p + 0.3, fill: page.dark ? "#3c3c40" : "#c9c9c6" }));
      if (dials.copies && found.copied[n]) {
        covers.push(h("circle", { cx: left + p / 2, cy: top + p / 2, r: Math.max(1.6, p * 0.16), fill: page.dark ? "#E69F00" : "#8a3b00" }));
      }
    }
    return h("g", {}, words(x, y - 5, still ? "one image" : `slot ${slot + 1}`, { class: "small" }),
      cell(data.sheet, still ? data.still : slot, x, y, side), covers);
  });
  const visible = hidden.length - found.hidden, share = found.hidden ? found.copyable / found.hidden : 0;
  const told = `${visible} of ${hidden.length} tokens stay visible, ${found.hidden} are hidden.` + (still
    ? " A still has no neighbour in time to copy from."
    : ` Of the hidden ones ${found.copyable} (${percent(share)}) are visible at the same place one slot earlier or later.`);
  return {
    node: picture(page, Math.ceil(t / across) * (side + head + gap), slots), told, off: still ? ["kind", "copies"] : found.copyable ? [] : ["copies"],
    alt: `${still ? "A drawn face" : `A drawn clip as ${t} time slots`} under a ${dials.kind} mask of ratio ${dials.ratio}, hidden tokens grey. ${told}`,
    note: still ? "Frame and tube masks need time: an image has one slot." : "A dot marks a hidden token that a visible neighbour in time gives away.",
  };
}

export { counts, mask };
export default explorer({ draw });
