// Input, what the encoder sees, and what the decoder makes of it.

/** Key and number of slots of the recorded state for these dials. */
function chosen(dials) {
  const still = dials.what === "image";
  return { key: `${dials.what} ${dials.face} ${still ? "random" : dials.kind} ${dials.ratio}`, slots: still ? 1 : 4, still };
}

function hiddenOf(packed, count) {
  const all = bytes(packed);
  return Array.from({ length: count }, (_, n) => Boolean((all[n >> 3] >> (7 - (n & 7))) & 1));
}

function draw(page, dials, data) {
  const { key, slots, still } = chosen(dials), state = data.states[key], [, rows, columns] = data.grid;
  const hidden = hiddenOf(state.mask, slots * rows * columns), gap = 8, head = 20;
  const made = state.place + slots * data.order.indexOf(dials.shown);
  const across = still ? (page.width < 480 ? 2 : 3) : 4;
  const side = Math.min(240, Math.floor((page.width - gap * (across - 1)) / across)), p = side / rows;
  // Tokens of a slot, painted over a picture at x, y: grey, or the visible ones as they were.
  const tokens = (slot, x, y, wanted, paint) => hidden.slice(slot * rows * columns, (slot + 1) * rows * columns).map((is, place) =>
    is === wanted ? paint(x + (place % columns) * p, y + Math.floor(place / columns) * p, place) : null);
  const grey = page.dark ? "#3c3c40" : "#c9c9c6";
  const views = [["input", (slot, x, y) => cell(data.sheet, state.input + slot, x, y, side)],
    ["the encoder sees", (slot, x, y) => [cell(data.sheet, state.input + slot, x, y, side),
      tokens(slot, x, y, true, (left, top) => h("rect", { x: left, y: top, width: p + 0.3, height: p + 0.3, fill: grey }))]],
    [dials.paste ? "hidden predicted" : "all predicted", (slot, x, y) => [cell(data.sheet, made + slot, x, y, side),
      dials.paste ? tokens(slot, x, y, false, (left, top, place) => {
        const index = state.input + slot, sheet = data.sheet, sx = (index % sheet.columns) * sheet.width, sy = Math.floor(index / sheet.columns) * sheet.height;
        const w = sheet.width / columns, column = place % columns, row = Math.floor(place / columns);
        return h("svg", { x: left, y: top, width: p + 0.3, height: p + 0.3, preserveAspectRatio: "none", viewBox: `${sx + column * w} ${sy + row * w} ${w} ${w}` },
          h("image", { href: address(sheet.data), width: sheet.columns * sheet.width, height: Math.ceil(sheet.count / sheet.columns) * sheet.height, preserveAspectRatio: "none" }));
      }) : null]]];
  const parts = [];
  let y = 0;
  views.forEach(([title, paint], k) => {
    const column = still ? k % across : 0;
    if (k && column === 0) y += side + head + gap;
    parts.push(words(column * (side + gap), y + 14, title, { class: "strong" }));
    for (let slot = 0; slot < slots; slot++) parts.push(paint(slot, (still ? column : slot) * (side + gap), y + head));
  });
  const count = hidden.filter(Boolean).length;
  const told = `${count} of ${hidden.length} tokens are hidden. The network closes ${percent(state.closed)} of what predicting nothing leaves open.`;
  const notes = { lent: "A prediction says nothing about brightness and contrast: this picture borrows the true mean and spread of every token.",
    raw: "What the decoder puts out: pixels normalised token by token, so flat places look like noise.",
    means: "No network at all: the true mean of every token. Compare with the first choice to see how much was lent." };
  return { node: picture(page, y + side + head + 4, parts), told, note: notes[dials.shown], off: still ? ["kind"] : [],
    alt: `A drawn ${still ? "face" : "clip in four slots"}: input, visible tokens and reconstruction. ${told}` };
}

export { chosen, hiddenOf };
export default explorer({ draw });
