// Where one token of the encoder looks: frames dimmed where it does not.

/** Shares of the chosen token's attention over all tokens; they sum to 1. */
function state(dials, data) {
  const still = dials.what === "image", [t, rows, columns] = data.grid, n = rows * columns * (still ? 1 : t);
  const token = (still ? 0 : dials.slot) * rows * columns + dials.row * columns + dials.column;
  const row = bytes(data.maps[`${dials.what} ${dials.block} ${still ? dials.head : "mean"}`]).slice(token * n, (token + 1) * n);
  const sum = row.reduce((total, value) => total + value, 0);
  return { shares: Array.from(row, (value) => value / sum), token, still };
}

function draw(page, dials, data) {
  const { shares, token, still } = state(dials, data), [t, rows, columns] = data.grid, places = rows * columns;
  const slots = still ? 1 : t, gap = 8, head = 18, across = still ? 1 : page.width < 480 ? 2 : 4;
  const side = Math.min(still ? 300 : 240, Math.floor((page.width - gap * (across - 1)) / across)), p = side / rows;
  const most = Math.max(...shares);
  const parts = Array.from({ length: slots }, (_, slot) => {
    const x = (slot % across) * (side + gap), y = Math.floor(slot / across) * (side + head + gap) + head;
    const sum = shares.slice(slot * places, (slot + 1) * places).reduce((total, share) => total + share, 0);
    return h("g", {}, words(x, y - 5, still ? "one image" : `slot ${slot + 1}: ${percent(sum)}`, { class: "small" }),
      cell(data.sheet, still ? 0 : 1 + slot, x, y, side),
      shares.slice(slot * places, (slot + 1) * places).map((share, place) => h("rect", { x: x + (place % columns) * p, y: y + Math.floor(place / columns) * p,
        width: p + 0.3, height: p + 0.3, fill: "#000000", "fill-opacity": (0.78 * (1 - share / most)).toFixed(3) }, h("title", {}, percent(share, 1)))));
  });
  const slot = Math.floor(token / places), x = (slot % across) * (side + gap) + dials.column * p, y = Math.floor(slot / across) * (side + head + gap) + head + dials.row * p;
  parts.push(h("rect", { x: x + 1.5, y: y + 1.5, width: p - 3, height: p - 3, fill: "none", stroke: "#ffffff", "stroke-width": 5 }),
    h("rect", { x: x + 1.5, y: y + 1.5, width: p - 3, height: p - 3, fill: "none", stroke: PALETTE.scratch, "stroke-width": 3 }));
  const own = shares.slice(slot * places, (slot + 1) * places).reduce((total, share) => total + share, 0);
  const same = still ? 0 : shares.reduce((total, share, n) => n % places === token % places && n !== token ? total + share : total, 0);
  const top = shares.indexOf(most), where = `${still ? "" : `slot ${Math.floor(top / places) + 1}, `}row ${Math.floor((top % places) / columns) + 1}, column ${(top % columns) + 1}`;
  const told = `${percent(shares[token])} of this token's attention is on itself` + (still ? "" : `, ${percent(same)} on its place in other slots, ${percent(own)} on its own slot`)
    + `. It looks most at ${where}: ${(most * shares.length).toFixed(1)} times an even share.`;
  return { node: picture(page, Math.ceil(slots / across) * (side + head + gap), parts), told, off: still ? ["slot"] : ["head"],
    alt: `A drawn ${still ? "face" : "clip in four slots"}, dimmed where the framed token in row ${dials.row + 1}, column ${dials.column + 1} does not look. ${told}`,
    note: "Attention says what was mixed, not why an answer was given." + (still ? "" : " Clips: mean of the four heads.") };
}

export { state };
export default explorer({ draw });
