// The whole image: its objects and what was decided on them; objects are added, and the image is marked as complete.

import { get, pictureOf } from "./api.js";
import { keyOf, shown } from "./keys.js";
import { $, node, say, saved, showActions, showClasses } from "./panel.js";
import { drawImage, placeOf } from "./picture.js";

const LONGEST = 2048;
const BUTTONS = ["add", "complete", "previous", "next", "undo", "image"];
const ID_BYTES = 8;

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
    this.onClick = (event) => this.click(event);
  }

  async open(id) {
    const whole = await this.does.ask(() => get(`images/${id}`));
    const url = URL.createObjectURL(await this.does.ask(() => pictureOf(id, [0, 0, whole.image.width, whole.image.height], LONGEST)));
    if (this.url) URL.revokeObjectURL(this.url);
    Object.assign(this, { whole, url });
    $("picture").hidden = false;
    $("empty").hidden = true;
    $("picture").addEventListener("click", this.onClick);
    this.draw();
  }

  async reload() {
    this.whole = await this.does.ask(() => get(`images/${this.whole.image.id}`));
    this.draw();
  }

  close() {
    $("picture").removeEventListener("click", this.onClick);
    $("picture").classList.remove("adding");
    URL.revokeObjectURL(this.url);
  }

  get completedByMe() {
    return this.whole.complete.includes(this.page.reviewer);
  }

  draw() {
    const { image, objects, complete } = this.whole;
    $("picture").classList.toggle("adding", this.adding);
    drawImage($("picture"), this.whole, this.url, (one, event) => this.chosen(one, event));
    const decided = objects.filter((one) => one.decided).length;
    $("about").replaceChildren(
      node("h2", {}, image.name, node("small", {}, `${image.width} x ${image.height} pixels`)),
      node("ul", {}, node("li", {}, `${objects.length} objects, ${decided} decided`),
        node("li", {}, complete.length ? `complete, says ${complete.join(", ")}` : "not marked as complete")),
      node("p", { class: "file" }, this.adding
        ? `Each click adds an object of the class below. ${shown(keyOf("add"))} ends it.`
        : `Click an object to see it alone. ${shown(keyOf("add"))}: add objects that have no click.`),
    );
    showClasses(this.page.classes, this.category, (name) => { this.category = name; this.draw(); });
    $("said").replaceChildren();
    $("place").textContent = "the whole image";
    showActions(BUTTONS, this.does.run, (name) => name === "undo" && !this.page.now.last,
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
    if (action === "undo") {
      await this.does.undo();
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
    if (this.adding) return;
    event.stopPropagation();
    if (!one.added) this.does.openObject(one.id);
    else say(`Added by ${one.by}: ${one.category}. ${one.by === this.page.reviewer ? "Undo takes it back." : ""}`, true);
  }

  async click(event) {
    const place = this.adding && placeOf($("picture"), event, this.whole.image.width, this.whole.image.height);
    if (!place || this.page.busy) return;
    this.page.busy = true;
    try {
      const point = place.map((value) => Math.round(value * 100) / 100);
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
