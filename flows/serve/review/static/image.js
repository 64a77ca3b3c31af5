// The whole image: its objects and what was decided on them; objects are added, and the image is marked as complete.

import { get, pictureOf } from "./api.js";
import { keyOf, shown } from "./keys.js";
import { $, node, say, saved, showActions, showClasses } from "./panel.js";
import { drawImage, placeOf } from "./picture.js";

const LONGEST = 2048;
const BUTTONS = ["add", "complete", "previous", "next", "undo", "redo", "image"];
const ID_BYTES = 8;
const MOST_ZOOM = 40;
const STILL = 4; // pixels of the screen by which a click may move
const SETTLED = 250; // milliseconds after which a zoomed part is fetched

function newId() {
  return [...crypto.getRandomValues(new Uint8Array(ID_BYTES))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class WholeImage {
  // `does`: decide, ask, undo, back, openObject.
  constructor(page, does) {
    this.page = page;
    this.does = does;
    this.adding = false;
    this.category = page.shown?.decided_category ?? page.shown?.category ?? page.classes[0];
    this.on = {
      click: (event) => this.click(event), wheel: (event) => this.zoom(event),
      pointerdown: (event) => { this.press = { x: event.clientX, y: event.clientY, view: this.view, moved: false }; },
      pointermove: (event) => this.pan(event),
    };
  }

  async open(id) {
    const whole = await this.does.ask(() => get(`images/${id}`));
    const url = URL.createObjectURL(await this.does.ask(() => pictureOf(id, [0, 0, whole.image.width, whole.image.height], LONGEST)));
    this.forget();
    Object.assign(this, { whole, url, view: [0, 0, whole.image.width, whole.image.height], press: null });
    $("picture").hidden = false;
    $("empty").hidden = true;
    for (const [name, does] of Object.entries(this.on)) $("picture").addEventListener(name, does, { passive: false });
    this.draw();
  }

  forget() {
    clearTimeout(this.settling);
    for (const one of [this.url, this.detail?.url]) if (one) URL.revokeObjectURL(one);
    this.detail = null;
  }

  get isZoomed() {
    return this.view[2] < this.whole.image.width;
  }

  // Shows a part, within the image; its picture follows.
  look([x, y, w, h]) {
    const { width, height } = this.whole.image;
    this.view = [Math.min(Math.max(0, x), width - w), Math.min(Math.max(0, y), height - h), w, h];
    $("picture").setAttribute("viewBox", this.view.join(" "));
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.sharpen().catch(() => {}), SETTLED);
  }

  async sharpen() {
    const { image } = this.whole;
    const old = this.detail;
    const [x, y, w, h] = this.view.map(Math.floor);
    const window = [x, y, Math.min(w + 2, image.width - x), Math.min(h + 2, image.height - y)];
    const isCoarse = Math.max(image.width, image.height) > LONGEST && this.isZoomed;
    const detail = isCoarse ? { window, url: URL.createObjectURL(await pictureOf(image.id, window, LONGEST)) } : null;
    if (this.page.whole !== this || image !== this.whole.image) return;
    this.detail = detail;
    this.draw();
    if (old) URL.revokeObjectURL(old.url);
  }

  zoom(event) {
    event.preventDefault();
    const { width, height } = this.whole.image;
    const at = placeOf($("picture"), event, width, height);
    if (!at) return;
    const [x, y, w] = this.view;
    const wide = Math.min(width, Math.max(width / MOST_ZOOM, w * (event.deltaY > 0 ? 1.25 : 0.8)));
    const scale = wide / w;
    this.look([at[0] - (at[0] - x) * scale, at[1] - (at[1] - y) * scale, wide, (wide * height) / width]);
  }

  pan(event) {
    if (!this.press || !(event.buttons & 1)) return;
    const [dx, dy] = [event.clientX - this.press.x, event.clientY - this.press.y];
    if (Math.hypot(dx, dy) > STILL) this.press.moved = true;
    const scale = 1 / $("picture").getScreenCTM().a;
    const [x, y, w, h] = this.press.view;
    if (this.press.moved && this.isZoomed) this.look([x - dx * scale, y - dy * scale, w, h]);
  }

  async reload() {
    this.whole = await this.does.ask(() => get(`images/${this.whole.image.id}`));
    this.draw();
  }

  close() {
    for (const [name, does] of Object.entries(this.on)) $("picture").removeEventListener(name, does);
    $("picture").classList.remove("adding");
    this.forget();
  }

  get completedByMe() {
    return this.whole.complete.includes(this.page.reviewer);
  }

  draw() {
    const { image, objects, complete } = this.whole;
    $("picture").classList.toggle("adding", this.adding);
    drawImage($("picture"), this.whole, this.url, this.view, this.detail, (one, event) => this.chosen(one, event));
    const decided = objects.filter((one) => one.decided).length;
    $("about").replaceChildren(
      node("h2", {}, image.name, node("small", {}, `${image.width} x ${image.height} pixels`)),
      node("ul", {}, node("li", {}, `${objects.length} objects, ${decided} decided`),
        node("li", {}, complete.length ? `complete, says ${complete.join(", ")}` : "not marked as complete")),
      node("p", { class: "file" }, this.adding
        ? `Each click adds an object of the class below. ${shown(keyOf("add"))} ends it.`
        : `Click an object to see it alone. ${shown(keyOf("add"))}: add objects that have no click. The wheel zooms.`),
    );
    showClasses(this.page.classes, this.category, (name) => { this.category = name; this.draw(); });
    $("said").replaceChildren();
    $("place").textContent = "the whole image";
    showActions(BUTTONS, this.does.run, (name) => (name === "undo" && !this.page.now.last) || (name === "redo" && !this.page.now.redo),
      (name) => (name === "add" && this.adding) || (name === "complete" && this.completedByMe) || name === "image");
  }

  async run(action) {
    if (typeof action === "object") {
      this.category = action.name ?? this.page.classes[action.class];
      return this.draw();
    }
    if (action === "add") {
      this.adding = !this.adding;
      return this.draw();
    }
    const near = { previous: this.whole.previous, next: this.whole.next }[action];
    if (near !== undefined && near !== null) return this.open(near);
    if (action === "complete") return this.complete();
    if (action === "undo" || action === "redo") {
      await this.does[action]();
      return this.reload();
    }
    if (action === "image") setTimeout(this.does.back);
    return undefined;
  }

  async complete() {
    const name = this.whole.image.name;
    if (this.completedByMe) {
      const last = this.page.now.last;
      if (last?.action !== "complete" || last.image !== name) return say("It is marked already; undo takes back your last decision only.", true);
      await this.does.undo();
    } else {
      await this.does.decide("complete", { image: name });
      saved("saved: complete");
    }
    return this.reload();
  }

  chosen(one, event) {
    if (this.adding || this.press?.moved) return;
    event.stopPropagation();
    this.does.openObject(one.id);
  }

  async click(event) {
    const place = this.adding && !this.press?.moved && placeOf($("picture"), event, this.whole.image.width, this.whole.image.height);
    if (!place || this.page.busy) return;
    this.page.busy = true;
    try {
      const point = place.map((value) => Math.floor(value * 100) / 100);
      await this.does.decide("add", { image: this.whole.image.name, object: newId(), category: this.category, point });
      saved(`saved: ${this.category}`);
      await this.reload();
    } catch (error) {
      say(error.message);
    } finally {
      this.page.busy = false;
    }
  }
}
