// node explorers.mjs FILE.mjs: drive one explorer through every setting of every dial; print as JSON what it said.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { pretend, stubModel } from "./dom.mjs";

const el = pretend();
const module = await import(pathToFileURL(process.argv[2]));
const { render } = module.default;

// What MyST gives: a model that knows nothing.
const bare = stubModel();
const leave = render({ model: bare, el });
const root = el.children[0];
const picture = () => root.classed("view")[0].children[0];
const told = () => root.classed("told")[0].textContent;
assert.equal(root.attributes.role, "group");
assert.match(root.attributes["aria-label"], /^Explorer: ./);

const controls = [...root.find("input"), ...root.find("select")];
assert.ok(controls.length > 0);
const labels = root.find("label").map((label) => label.attributes.for);
for (const control of controls) assert.ok(labels.includes(control.attributes.id), `${control.attributes.id} has no label`);

const sound = (where) => {
  assert.equal(picture().attributes.role, "img");
  assert.ok(picture().attributes["aria-label"].length > 20, `${where}: no alt text`);
  assert.ok(told().length > 20, `${where}: nothing told`);
  for (const node of picture().all) for (const [name, value] of Object.entries(node.attributes)) {
    assert.ok(!/NaN|undefined|Infinity/.test(value), `${where}: ${node.tag} ${name}=${value.slice(0, 80)}`);
    if (["width", "height", "r"].includes(name)) assert.ok(!(Number(value) < 0), `${where}: ${node.tag} ${name}=${value}`);
  }
  for (const text of [told(), picture().attributes["aria-label"], picture().textContent]) {
    assert.ok(!/NaN|undefined|Infinity|\[object/.test(text), `${where}: ${text.slice(0, 200)}`);
  }
};
sound("start");

let moved = 0, able = 0;
const said = [];
for (const control of controls) {
  const places = control.attributes.type === "range" ? Number(control.attributes.max) + 1
    : control.tag === "select" ? control.find("option").length : 2;
  if (control.disabled) continue; // it says itself that it has nothing to turn here
  able++;
  const before = control.value, seen = new Set();
  for (let place = 0; place < places; place++) {
    if (control.attributes.type === "checkbox") control.checked = Boolean(place);
    else control.value = String(place);
    control.dispatch("input");
    control.dispatch("change");
    sound(`${control.attributes.id} at ${place}`);
    seen.add(told() + JSON.stringify(picture().all.map((node) => [node.tag, node.text, { ...node.attributes, href: "" }])));
    said.push({ dials: bare.state.dials, told: told() });
  }
  if (seen.size > 1) moved++;
  if (control.attributes.type === "checkbox") control.checked = true; else control.value = before;
  control.dispatch("input");
  control.dispatch("change");
}
assert.ok(moved > 0, "no dial changes the picture");
assert.ok(bare.saved.length > 0);

// The other way: a kernel turns a dial, and the front end follows.
const spec = said.find((one) => one.told !== told()) ?? said[0];
bare.tell("dials", spec.dials);
assert.equal(told(), spec.told);
leave();
assert.equal(bare.listeners(), 0, "listeners stay behind");
console.log(JSON.stringify({ said, moved, able, exports: Object.keys(module) }));
