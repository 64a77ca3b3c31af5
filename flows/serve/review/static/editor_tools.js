// The editor's tools: what a pointer does. One pointer is the tool's, two move and scale the view.

import { Board } from "./editor_board.js";
import { edgeAt, paint } from "./editor_shapes.js";

const STILL = 4; // pixels of the screen by which a press that is no drag may move
const NEAR = 9; // pixels of the screen

export class Tools extends Board {
  get rings() {
    return this.state.kind === "polygon" ? this.state.rings : this.state.handles;
  }

  setRings(rings, more = {}, replaces = false) {
    this[replaces ? "change" : "apply"]({ kind: "polygon", rings, open: null, ...more });
  }

  put(change, replaces) {
    this[replaces ? "change" : "apply"]({ kind: "click", ...change });
  }

  // Pointers: one is the tool's, two move and scale the view.

  down(event) {
    this.root.focus({ preventScroll: true });
    this.board.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.screen(event));
    if (this.pointers.size === 2 && this.press) {
      this.takeBack();
      this.press = null;
    }
    if (this.pointers.size > 1 || this.saving) return;
    const at = this.at(event);
    this.press = { at, from: this.screen(event), other: event.button === 2 || event.altKey, before: this.state, moved: false };
    if (event.button === 1 || this.isBare) this.press.pans = true;
    else if (this.tool === "click") this.downClick(event);
    else if (this.tool === "polygon") this.downPolygon(event);
    else this.downBrush();
  }

  // A second finger came: what the first one did is no edit.
  takeBack() {
    if (this.press.stroke || this.press.pushed) {
      this.state = this.press.pushed ? this.past.pop() : this.press.before;
      this.shown = this.state.answer ?? this.shown;
    }
    this.press.stroke = null;
    this.render();
  }

  move(event) {
    const before = this.pointers.get(event.pointerId), now = this.screen(event);
    this.hover = this.at(event);
    if (!before) return this.render();
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      this.zoom(apart(now) / Math.max(apart(before), 1), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    } else if (this.press) {
      const { press } = this;
      press.moved ||= Math.hypot(now[0] - press.from[0], now[1] - press.from[1]) > STILL;
      if (press.stroke) this.stroke(press.stroke.last, this.hover);
      else if (press.drag && press.moved) press.drag(this.hover);
      else if (press.moved && !press.drag) this.pan(now[0] - before[0], now[1] - before[1]);
    }
    this.pointers.set(event.pointerId, now);
    return undefined;
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    const { press } = this;
    this.press = null;
    if (!press) return;
    if (press.stroke) this.apply({ kind: "brush", pixels: press.stroke.pixels, outside: press.stroke.outside });
    else if (!press.moved && !press.pans) press.tap?.();
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    if (this.press) this.takeBack();
    this.press = null;
  }

  leave() {
    this.hover = null;
    this.render();
  }

  // Begins a drag: the first change is a state of its own, further ones replace it.
  drags(edit) {
    const { press } = this;
    press.drag = (place) => {
      edit(place, press.pushed === true);
      press.pushed = true;
    };
  }

  downClick(event) {
    const { point, further } = this.state, { at, other } = this.press;
    const which = event.target.dataset?.click;
    if (which !== undefined && other) {
      this.press.tap = () => { this.chosen = which; this.remove(); };
    } else if (which !== undefined) {
      this.chosen = which;
      this.render();
      this.drags(([x, y], replaces) => this.put(which === "main" ? { point: [x, y] }
        : { further: this.state.further.map((one, n) => (String(n) === which ? { ...one, x, y } : one)) }, replaces));
    } else if (!this.isOutside(event)) {
      this.press.tap = () => {
        if (!point) return this.put({ point: at });
        this.chosen = String(further.length);
        return this.put({ further: [...further, { x: at[0], y: at[1], inside: other ? !this.inside : this.inside }] });
      };
    }
  }

  downPolygon(event) {
    const { rings } = this, { at, other } = this.press;
    if (!rings) return; // on their way
    const { open } = this.state;
    const corner = event.target.dataset?.corner?.split(" ").map(Number);
    const moves = ([ring, n]) => this.drags((place, replaces) => this.setRings(this.rings.map((one, r) => (r === ring ? one.with(n, place) : one)), { open }, replaces));
    if (open !== null && open !== undefined && !other) {
      const drawn = rings[open];
      this.press.tap = () => {
        if (corner && corner[0] === open && corner[1] === 0 && drawn.length > 2) return this.setRings(rings);
        const [x, y] = drawn.at(-1);
        if (corner || Math.hypot(x - at[0], y - at[1]) * this.scale < STILL) return undefined; // the second of a double click
        return this.setRings(rings.with(open, [...drawn, at]), { open });
      };
      if (corner) moves(corner);
    } else if (corner) {
      this.chosen = corner.join(" ");
      if (other) this.press.tap = () => this.remove();
      else moves(corner);
    } else {
      const edge = edgeAt(rings, at, NEAR / this.scale);
      if (edge && !other) {
        this.chosen = edge.join(" ");
        this.press.pushed = true;
        this.setRings(rings.with(edge[0], rings[edge[0]].toSpliced(edge[1], 0, at)));
        moves(edge);
      } else if (!other) {
        this.press.tap = () => this.setRings([...rings, [at]], { open: rings.length });
      }
    }
  }

  closeRing() {
    const { open } = this.state;
    if (this.tool !== "polygon" || open === null || open === undefined) return false;
    if (this.rings[open].length > 2) this.setRings(this.rings);
    return true;
  }

  downBrush() {
    const { press, state } = this;
    if (!state.pixels) return; // on their way
    const value = (this.tool === "brush") === press.other ? 0 : 1;
    const outside = state.kind === "brush" ? state.outside : state.answer?.mask ?? null;
    press.stroke = { pixels: state.pixels.slice(), value, outside, last: press.at };
    this.stroke(press.at, press.at);
  }

  stroke(from, to) {
    const { stroke } = this.press;
    this.drawPixels(stroke.pixels);
    this.drawPixels(stroke.pixels, paint(stroke.pixels, this.area, from, to, this.size / 2, stroke.value));
    stroke.last = to;
    this.render();
  }

  remove() {
    if (this.chosen === null) return;
    if (this.tool === "click") {
      if (this.chosen === "main") return;
      this.put({ further: this.state.further.filter((_, n) => String(n) !== this.chosen) });
    } else if (this.tool === "polygon" && this.rings) {
      const [ring, n] = this.chosen.split(" ").map(Number), { open } = this.state;
      if (!this.rings[ring]?.[n]) return;
      const left = this.rings[ring].toSpliced(n, 1), least = open === ring ? 1 : 3;
      const gone = left.length < least;
      this.setRings(gone ? this.rings.toSpliced(ring, 1) : this.rings.with(ring, left), { open: gone ? null : open });
    }
    this.chosen = null;
    this.render();
  }
}
