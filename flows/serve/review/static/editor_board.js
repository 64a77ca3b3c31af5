// The editor's board: a part of an image, pixels and shapes over it, and where the view is. `scale` pixels of the screen are
// one of the image, whose place `origin` is in the board's corner. Places are x, y in pixels of the image.

import { node } from "./panel.js";
import { element } from "./picture.js";

const COLOUR = [25, 227, 255, 110];

export class Board {
  // `url`: the picture of the area.
  build(url) {
    const [, , w, h] = this.area;
    Object.assign(this, { url, drawn: null });
    this.image = node("img", { src: url, alt: "", draggable: "false", style: `width:${w}px;height:${h}px` });
    this.canvas = node("canvas", { width: w, height: h });
    this.shapes = element("g"); // moved and scaled as the picture is, whatever size the board has at the moment
    this.svg = element("svg", { role: "img", "aria-label": "the mask" }, this.shapes);
    this.board = node("div", { class: "board" }, this.image, this.canvas, this.svg);
    for (const name of ["down", "move", "up", "cancel", "leave"]) this.board.addEventListener(`pointer${name}`, (event) => this[name](event));
    this.board.addEventListener("contextmenu", (event) => event.preventDefault());
    this.board.addEventListener("dblclick", () => this.closeRing());
    this.board.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), this.screen(event));
    }, { passive: false });
    return this.board;
  }

  fit() {
    const [x, y, w, h] = this.object.window, box = this.board.getBoundingClientRect();
    this.scale = Math.min(Math.max(box.width, 1) / w, Math.max(box.height, 1) / h);
    this.origin = [x + w / 2 - box.width / this.scale / 2, y + h / 2 - box.height / this.scale / 2];
    this.place();
  }

  place() {
    const [x, y] = this.area;
    const move = `translate(${(x - this.origin[0]) * this.scale}px, ${(y - this.origin[1]) * this.scale}px) scale(${this.scale})`;
    this.image.style.transform = this.canvas.style.transform = move;
    this.shapes.setAttribute("transform", `scale(${this.scale}) translate(${-this.origin[0]} ${-this.origin[1]})`);
    this.render();
  }

  zoom(factor, at) {
    const scale = Math.min(64, Math.max(0.05, this.scale * factor));
    this.origin = this.origin.map((from, n) => from + at[n] / this.scale - at[n] / scale);
    this.scale = scale;
    this.place();
  }

  pan(dx, dy) {
    this.origin = [this.origin[0] - dx / this.scale, this.origin[1] - dy / this.scale];
    this.place();
  }

  screen(event) {
    const box = this.board.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  isOutside(event) {
    const { width, height } = this.object.image;
    const [x, y] = this.screen(event).map((value, n) => this.origin[n] + value / this.scale);
    return x < 0 || y < 0 || x >= width || y >= height;
  }

  // The place of a pointer; the nearest one in the image.
  at(event) {
    const { width, height } = this.object.image;
    return this.screen(event).map((value, n) => {
      const found = this.origin[n] + value / this.scale;
      return Math.round(100 * Math.min(Math.max(found, 0), (n ? height : width) - 0.01)) / 100;
    });
  }

  bare(is) {
    this.isBare = is;
    this.board.classList.toggle("bare", is);
  }

  // All pixels if they are others than those that are drawn, or those of a part that changed.
  drawPixels(pixels, part) {
    if (pixels === this.drawn && !part) return;
    this.drawn = pixels;
    const context = this.canvas.getContext("2d"), { width, height } = this.canvas;
    const [x, y, w, h] = part ?? [0, 0, width, height];
    if (w < 1 || h < 1) return;
    const data = context.createImageData(w, h), words = new Uint32Array(data.data.buffer);
    const [word] = new Uint32Array(new Uint8ClampedArray(COLOUR).buffer);
    for (let n = 0; pixels && n < words.length; n++) if (pixels[(y + Math.floor(n / w)) * width + x + (n % w)]) words[n] = word;
    context.putImageData(data, x, y);
  }

  marker(name, [x, y], kind, unit) {
    const arm = 2.8 * unit;
    const sign = { main: "", inside: `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`, outside: `M${x - arm} ${y}h${2 * arm}` }[kind];
    return [
      element("circle", { class: `click ${kind}${this.chosen === name ? " chosen" : ""}`, cx: x, cy: y, r: 6 * unit, "stroke-width": 1.5 * unit }),
      element("path", { class: "plus", d: sign, "stroke-width": 1.5 * unit }),
      element("circle", { class: "grip", "data-click": name, cx: x, cy: y, r: 14 * unit }),
    ];
  }
}
