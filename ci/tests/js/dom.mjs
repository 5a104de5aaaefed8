// As much of a browser's document as the explorers use, so that node can run them: elements, text, attributes, events.

class Node {
  constructor(tag) {
    this.tag = tag.toLowerCase();
    this.children = [];
    this.attributes = {};
    this.listeners = {};
    this.text = "";
    this._value = undefined;
  }
  append(...children) { for (const child of children) this.children.push(typeof child === "string" ? textNode(child) : child); }
  replaceChildren(...children) { this.children = []; this.append(...children); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name] ?? null; }
  hasAttribute(name) { return name in this.attributes; }
  toggleAttribute(name, on) { if (on) this.attributes[name] = ""; else delete this.attributes[name]; }
  addEventListener(name, heard) { (this.listeners[name] ??= []).push(heard); }
  dispatch(name) { for (const heard of this.listeners[name] ?? []) heard({ target: this }); }
  get textContent() { return this.text + this.children.map((child) => child.textContent).join(""); }
  set textContent(value) { this.children = []; this.text = String(value); }
  get value() { return this._value ?? this.attributes.value; }
  set value(value) { this._value = String(value); }
  get all() { return this.children.flatMap((child) => [child, ...child.all]); }
  find(tag) { return this.all.filter((node) => node.tag === tag); }
  classed(name) { return this.all.filter((node) => (node.attributes.class ?? "").split(" ").includes(name)); }
}

function textNode(text) {
  const node = new Node("#text");
  node.text = text;
  return node;
}

export function pretend() {
  const root = new Node("html");
  root.classList = { contains: () => false };
  globalThis.document = {
    documentElement: root, body: new Node("body"),
    createElement: (tag) => new Node(tag), createElementNS: (_, tag) => new Node(tag),
  };
  return new Node("div");
}

/** A model as anywidget gives it; `saved` lists what a front end sent. */
export function stubModel(state = {}) {
  const heard = {};
  return {
    state, saved: [],
    get: (key) => state[key],
    set: (key, value) => { state[key] = value; },
    save_changes() { this.saved.push(structuredClone(state.dials)); },
    on: (event, call) => { (heard[event] ??= []).push(call); },
    off: (event, call) => { heard[event] = (heard[event] ?? []).filter((one) => one !== call); },
    tell(key, value) { state[key] = value; for (const call of heard[`change:${key}`] ?? []) call(); },
    listeners: () => Object.values(heard).flat().length,
  };
}
