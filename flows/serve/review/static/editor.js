// The editor of an object's mask: clicks at which the networks draw, a polygon, a brush. Each edit is a state; the server
// gives the mask of each (flows/serve/review/editing.py). Places are x, y in pixels of the image.

import { pictureOf, post, Refused } from "./api.js";
import { grown, pathOf, pixelsOf, pngOf } from "./editor_shapes.js";
import { Tools } from "./editor_tools.js";
import { node } from "./panel.js";
import { element } from "./picture.js";

const LONGEST = 2048;
const STEPS = 200; // states that can be undone
const BYTES = 1 << 28; // of brush pixels in them
const TOOLS = {
  click: ["1", "clicks", "inside: click; outside: right button or Alt; drag moves one, right button or Delete removes it"],
  polygon: ["2", "polygon", "drag a corner; press an edge to add one, right button or Delete to remove one; elsewhere begin a ring"],
  brush: ["3", "brush", "paint; the right button or Alt erases"],
  eraser: ["4", "eraser", "erase; the right button or Alt paints"],
};
const KEYS = {
  1: "click", 2: "polygon", 3: "brush", 4: "eraser", X: "sign", A: "smaller", S: "larger", Z: "undo", Y: "redo", N: "new", 0: "fit",
  F: "take", Enter: "enter", D: "clicks", Escape: "back", Delete: "remove", Backspace: "remove",
};

export class Editor extends Tools {
  // `does`: ask (sends until there is a response), save (action, fields), back.
  constructor(root, does) {
    super();
    Object.assign(this, { root, does, tool: "click", inside: true, size: 12, pointers: new Map() });
    this.onKey = (event) => this.key(event);
    this.onSpace = (event) => { if (event.key === " ") this.bare(event.type === "keydown"); };
  }

  get isOpen() {
    return !this.root.hidden;
  }

  async open(object) {
    this.object = object;
    this.area = grown(object.window, object.image);
    post("draw/ahead", { image: object.image.id, object: object.id }).catch(() => {});
    const picture = await this.does.ask(() => pictureOf(object.image.id, this.area, LONGEST));
    const answer = { mask: object.mask, rings: [], reason: object.mask ? null : "no mask yet" };
    this.state = { kind: "click", point: object.click, further: object.further, answer };
    this.first = this.state;
    Object.assign(this, { past: [], future: [], chosen: null, shown: answer, saving: false });
    this.build(URL.createObjectURL(picture));
    this.root.hidden = false;
    addEventListener("keydown", this.onKey, true);
    addEventListener("keydown", this.onSpace, true);
    addEventListener("keyup", this.onSpace, true);
    this.drawTools(); // they take their part of the height first
    this.fit();
    this.render();
    if (object.mask) { // not waited for: the page does nothing else meanwhile, and a key would be lost
      this.pixels(this.state).catch((error) => { answer.reason = error.message; }).then(() => this.isOpen && this.render());
    }
  }

  close() {
    this.root.hidden = true;
    this.root.replaceChildren();
    URL.revokeObjectURL(this.url);
    removeEventListener("keydown", this.onKey, true);
    removeEventListener("keydown", this.onSpace, true);
    removeEventListener("keyup", this.onSpace, true);
  }

  build(url) {
    super.build(url);
    this.toolsKey = null;
    this.tools = node("div", { class: "tools", role: "toolbar" });
    this.said = node("p", { class: "said", role: "status" });
    this.root.replaceChildren(this.tools, this.board, this.said);
  }

  // States

  apply(change) {
    this.past.push(this.state);
    this.future = [];
    this.change(change);
    let bytes = 0;
    const kept = this.past.reverse().filter((one, n) => n < STEPS && (bytes += one.pixels?.length ?? 0) <= BYTES);
    this.past = kept.reverse();
  }

  // Replaces the state, as while something is dragged.
  change(change) {
    this.state = { ...this.state, answer: null, pixels: null, rings: null, handles: null, ...change };
    this.render();
    this.settle();
  }

  step(from, to) {
    if (!from.length || this.busy) return;
    to.push(this.state);
    this.state = from.pop();
    this.chosen = null;
    this.shown = this.state.answer ?? this.shown;
    this.prepare();
    this.settle();
    this.render();
  }

  // Gets the mask of the newest state; states that were passed meanwhile are left out.
  async settle() {
    if (this.settling) return this.settling;
    const { object } = this;
    this.settling = (async () => {
      while (this.isOpen && this.object === object && !this.state.answer) {
        const { state } = this;
        try {
          state.answer = await this.answer(state);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          state.answer = { mask: null, rings: [], reason: error.message };
        }
        if (this.state === state) this.shown = state.answer;
        if (this.isOpen && this.object === object) this.render();
      }
    })().finally(() => { this.settling = null; });
    return this.settling;
  }

  answer(state) {
    const image = this.object.image.id;
    const ask = (path, body) => this.does.ask(() => post(path, { image, ...body }));
    if (state.kind === "click") return ask("draw", { object: this.object.id, point: state.point, further: state.further });
    if (state.kind === "brush") return ask("mask/brush", { area: this.area, png: pngOf(state.pixels, this.area), outside: state.outside });
    const rings = state.rings.filter((ring) => ring.length > 2);
    return rings.length ? ask("mask/rings", { rings }) : Promise.resolve({ mask: null, rings: [], reason: "no ring is closed yet" });
  }

  // What the tool needs of the state: rings of a polygon, pixels of a brush.
  async prepare() {
    if (this.tool === "click") return;
    const { state } = this;
    await this.settle();
    if (this.state !== state) return this.prepare();
    if (this.tool === "polygon" ? state.kind === "polygon" || state.handles : state.pixels) return this.render();
    await this.pixels(state);
    if (this.state === state) this.render();
  }

  async pixels(state) {
    const { mask } = state.answer, [, , w, h] = this.area;
    const tolerance = Math.max(0.5, Math.max(w, h) / 500); // fewer corners to drag
    const found = mask && await this.does.ask(() => post("mask/pixels", { image: this.object.image.id, area: this.area, mask, tolerance }));
    state.pixels = found ? await pixelsOf(found.png, this.area) : new Uint8Array(w * h);
    state.handles = found?.corners ?? [];
    state.answer.rings = found?.rings ?? [];
  }

  // Actions

  key(event) {
    const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
    const redo = key === "Z" && event.shiftKey;
    if (event.altKey || ((event.ctrlKey || event.metaKey) && key !== "Z" && key !== "Y")) return;
    const action = redo ? "redo" : KEYS[key];
    if (!action || event.target.closest?.("dialog")) return;
    event.preventDefault();
    event.stopPropagation();
    this.run(action);
  }

  run(action) {
    if (this.saving) return;
    if (TOOLS[action]) return this.choose(action);
    const does = {
      sign: () => { this.inside = !this.inside; }, smaller: () => { this.size = Math.max(1, Math.round(this.size / 1.3)); },
      larger: () => { this.size = Math.min(500, Math.ceil(this.size * 1.3)); },
      undo: () => this.step(this.past, this.future), redo: () => this.step(this.future, this.past), fit: () => this.fit(),
      new: () => { if (this.tool === "polygon") this.setRings([]); },
      enter: () => { if (!this.closeRing()) this.save(); }, take: () => this.save(), clicks: () => this.saveClicks(),
      back: () => this.does.back(), remove: () => this.remove(),
    };
    does[action]();
    if (this.isOpen) this.render();
    return undefined;
  }

  choose(tool) {
    Object.assign(this, { tool, chosen: null });
    this.render();
    return this.prepare();
  }

  get changedClicks() {
    const { point, further } = this.state;
    return point && (JSON.stringify([point, further]) !== JSON.stringify([this.first.point, this.first.further]));
  }

  // The mask that is shown is right.
  save() {
    return this.saves(async () => {
      await this.settle();
      const { mask } = this.state.answer;
      if (!mask) return;
      if (this.state === this.first) await this.does.save("accept", { mask });
      else await this.does.save("mask", { mask, source: this.state.kind });
    });
  }

  // The next run draws at these clicks.
  saveClicks() {
    if (!this.changedClicks) return undefined;
    const { point, further } = this.state;
    return this.saves(() => this.does.save("clicks", { point, further }));
  }

  async saves(work) {
    if (this.saving) return;
    this.saving = true;
    try {
      await work();
    } finally {
      this.saving = false;
    }
  }

  // Drawing

  render() {
    this.drawTools();
    const { state, shown } = this, unit = 1 / this.scale;
    const polygon = this.tool === "polygon", brush = this.tool === "brush" || this.tool === "eraser";
    this.board.dataset.tool = this.tool;
    this.drawPixels(brush ? this.press?.stroke?.pixels ?? state.pixels : null);
    const parts = this.object.neighbours.map((one) => element("path", { class: "near", d: one.path }));
    const rings = polygon && this.rings ? this.rings : shown.rings;
    const open = polygon && this.rings ? state.open ?? -1 : -1;
    if (!brush || !state.pixels) {
      const d = pathOf(rings.filter((_, n) => n !== open));
      parts.push(element("path", { class: "halo", d }), element("path", { class: state.answer ? "mask" : "mask old", d }));
    }
    if (open >= 0) parts.push(element("path", { class: "open", d: pathOf([[...rings[open], ...(this.hover ? [this.hover] : [])]], false) }));
    if (polygon && this.rings) {
      rings.forEach((ring, r) => ring.forEach(([cx, cy], n) => parts.push(element("circle", {
        class: this.chosen === `${r} ${n}` ? "corner chosen" : "corner", "data-corner": `${r} ${n}`, cx, cy, r: 4.5 * unit, "stroke-width": 1.5 * unit }))));
    }
    if (this.tool === "click") {
      state.further.forEach((one, n) => parts.push(...this.marker(String(n), [one.x, one.y], one.inside ? "inside" : "outside", unit)));
      if (state.point) parts.push(...this.marker("main", state.point, "main", unit));
    }
    if (brush && this.hover) parts.push(element("circle", { class: "cursor", cx: this.hover[0], cy: this.hover[1], r: this.size / 2 }));
    this.shapes.replaceChildren(...parts);
    const score = shown.score === null || shown.score === undefined ? "" : `predicted IoU ${shown.score.toFixed(2)}`;
    const text = state.answer ? [shown.reason, shown.proposer && `mask of ${shown.proposer}`, score].filter(Boolean).join(" · ") : "drawing…";
    this.said.textContent = text || TOOLS[this.tool][2];
    this.root.dataset.state = state.answer ? "ready" : "waiting"; // for tests
  }

  drawTools() {
    const button = (name, key, text, title, more = {}) => node("button", { type: "button", title, "data-action": name, ...more,
      onclick: (event) => { event.currentTarget.blur(); this.run(name); } }, node("kbd", {}, key), text);
    const brush = this.tool === "brush" || this.tool === "eraser";
    const own = { click: [button("sign", "X", this.inside ? "adds inside" : "adds outside", "what a click adds")], polygon: [button("new", "N", "new", "drop these rings")] }[this.tool]
      ?? [button("smaller", "A", "smaller", "brush"), node("span", { class: "figure" }, `${this.size} px`), button("larger", "S", "larger", "brush")];
    const buttons = [
      ...Object.entries(TOOLS).map(([name, [key, text, title]]) => button(name, key, text, title, { "aria-pressed": String(this.tool === name) })),
      ...own,
      button("undo", "Z", "undo", "the last edit", { disabled: !this.past.length }), button("redo", "Y", "redo", "the edit", { disabled: !this.future.length }),
      button("fit", "0", "fit", "the whole object"),
      button("take", "F", this.state === this.first ? "accept" : "take mask", "this mask is right", { class: "accept", disabled: !this.state.answer?.mask && !!this.state.answer }),
      ...(brush ? [] : [button("clicks", "D", "clicks only", "the next run draws at these clicks", { disabled: !this.changedClicks })]),
      button("back", "Esc", "back", "without a decision"),
    ];
    const key = JSON.stringify(buttons.map((one) => one.outerHTML));
    if (key === this.toolsKey && this.tools.childElementCount) return; // a press must end on the button that it began on
    this.toolsKey = key;
    this.tools.replaceChildren(...buttons);
  }
}
