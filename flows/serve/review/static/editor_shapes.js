// Shapes of the editor, in pixels of the image: (0, 0) is the outer corner of its top left pixel, whose centre is
// (0.5, 0.5). An area is [x, y, width, height] in whole pixels; pixels of an area are a Uint8Array, row by row, of 0 and 1.

// A window with as much again on each side, inside the image.
export function grown([x, y, w, h], { width, height }) {
  const left = Math.max(0, x - w), top = Math.max(0, y - h);
  return [left, top, Math.min(width, x + 2 * w) - left, Math.min(height, y + 2 * h) - top];
}

export const pathOf = (rings, closed = true) => rings.filter((ring) => ring.length).map((ring) => `M${ring.map(([x, y]) => `${x} ${y}`).join("L")}${closed ? "Z" : ""}`).join("");

// [ring, place of a new corner] of the edge nearest to a place, if it is within `reach`; else null.
export function edgeAt(rings, [x, y], reach) {
  let best = null, least = reach;
  rings.forEach((ring, r) => ring.forEach(([ax, ay], n) => {
    const [bx, by] = ring[(n + 1) % ring.length];
    const length = (bx - ax) ** 2 + (by - ay) ** 2;
    const share = length ? Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length)) : 0;
    const distance = Math.hypot(ax + share * (bx - ax) - x, ay + share * (by - ay) - y);
    if (distance <= least) {
      least = distance;
      best = [r, n + 1];
    }
  }));
  return best;
}

// Sets the pixels whose centres are within a radius of a segment, and the one under its end; returns the part of the area
// that may have changed, [column, row, columns, rows].
export function paint(pixels, [left, top, w, h], [ax, ay], [bx, by], radius, value) {
  const reach = (a, b, low, size) => [Math.max(0, Math.floor(Math.min(a, b) - radius - low)), Math.min(size - 1, Math.ceil(Math.max(a, b) + radius - low))];
  const [x0, x1] = reach(ax, bx, left, w), [y0, y1] = reach(ay, by, top, h);
  const dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
  for (let row = y0; row <= y1; row++) {
    for (let column = x0; column <= x1; column++) {
      const x = left + column + 0.5 - ax, y = top + row + 0.5 - ay;
      const share = length ? Math.min(1, Math.max(0, (x * dx + y * dy) / length)) : 0;
      if ((x - share * dx) ** 2 + (y - share * dy) ** 2 <= radius * radius) pixels[row * w + column] = value;
    }
  }
  const column = Math.floor(bx) - left, row = Math.floor(by) - top;
  if (column >= 0 && column < w && row >= 0 && row < h) pixels[row * w + column] = value;
  return [x0, y0, x1 - x0 + 1, y1 - y0 + 1];
}

// Base64 of a grey PNG: 255 is the object.
export function pngOf(pixels, [, , w, h]) {
  const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
  const context = canvas.getContext("2d"), data = context.createImageData(w, h), words = new Uint32Array(data.data.buffer);
  const [on, off] = new Uint32Array(new Uint8Array([255, 255, 255, 255, 0, 0, 0, 255]).buffer);
  for (let n = 0; n < pixels.length; n++) words[n] = pixels[n] ? on : off;
  context.putImageData(data, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}

// The inverse of `pngOf`.
export async function pixelsOf(png, [, , w, h]) {
  const bytes = Uint8Array.from(atob(png), (one) => one.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, w, h);
  return Uint8Array.from({ length: w * h }, (_, n) => (data[4 * n] > 127 ? 1 : 0));
}
