// Pictures: a part of an image with masks and clicks over it, as SVG in pixels of the image.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function titled(node, text) {
  const title = element("title");
  title.textContent = text;
  node.append(title);
  return node;
}

// The size of a screen's pixel in pixels of the image.
function unit(svg, [, , w, h]) {
  const box = svg.getBoundingClientRect();
  return Math.max(w / Math.max(box.width, 1), h / Math.max(box.height, 1));
}

function start(svg, url, window) {
  const [x, y, width, height] = window;
  svg.setAttribute("viewBox", window.join(" "));
  svg.replaceChildren(element("image", { href: url, x, y, width, height, preserveAspectRatio: "none" }));
}

function click(svg, [x, y], size, kind, text) {
  svg.append(titled(element("circle", { class: `click ${kind}`, cx: x, cy: y, r: 5 * size, "stroke-width": 1.5 * size }), text));
  if (kind === "main") return;
  const arm = 2.6 * size;
  const sign = kind === "outside" ? `M${x - arm} ${y}h${2 * arm}` : `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`;
  svg.append(element("path", { class: "plus", d: sign, "stroke-width": 1.5 * size }));
}

export function drawObject(svg, object, url) {
  start(svg, url, object.window);
  const size = unit(svg, object.window);
  for (const one of object.neighbours) {
    const kind = one.rejected ? "near rejected" : "near";
    svg.append(titled(element("path", { class: kind, d: one.path }), one.category));
  }
  for (const one of object.rivals) svg.append(titled(element("path", { class: "rival", d: one.path }), `the mask of ${one.reviewer}`));
  if (object.path) svg.append(element("path", { class: "halo", d: object.path }), element("path", { class: "mask", d: object.path }));
  for (const one of object.further) {
    click(svg, [one.x, one.y], size, one.inside ? "inside" : "outside", `${one.inside ? "inside" : "outside"} the object`);
  }
  if (object.click) click(svg, object.click, size, "main", "the click");
}

// `view`: the part that is shown; `detail`: a sharper picture of a part, {window, url}, or null.
export function drawImage(svg, whole, url, view, detail, onObject) {
  start(svg, url, [0, 0, whole.image.width, whole.image.height]);
  svg.setAttribute("viewBox", view.join(" "));
  if (detail) {
    const [x, y, width, height] = detail.window;
    svg.append(element("image", { href: detail.url, x, y, width, height, preserveAspectRatio: "none" }));
  }
  const size = unit(svg, view);
  for (const one of whole.objects) {
    const state = one.contradicted ? "contradicted" : one.verdict ?? (one.added ? "add" : "");
    const text = `${one.category}${state ? `: ${state}` : ""}`;
    const node = one.path
      ? element("path", { class: `state ${state}`, d: one.path })
      : one.click && element("circle", { class: `state ${state}`, cx: one.click[0], cy: one.click[1], r: 9 * size });
    if (node) {
      node.addEventListener("click", (event) => onObject(one, event));
      svg.append(titled(node, text));
    }
    if (one.click) {
      click(svg, one.click, size * 0.7, "main", text);
      svg.lastChild.setAttribute("pointer-events", "none"); // a press on it is one on its object
    }
  }
}

// The place of a mouse event, in pixels of the image; null outside of it.
export function placeOf(svg, event, width, height) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return at.x >= 0 && at.y >= 0 && at.x < width && at.y < height ? [at.x, at.y] : null;
}
