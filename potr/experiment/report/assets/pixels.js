// SPDX-License-Identifier: Apache-2.0
// Pictures as pixels, and what two of them differ by.

// Decoded pictures by their number in the page, the last few kept.
class Pictures {
  constructor(most = 12) {
    this.most = most;
    this.kept = new Map();
  }

  // {width, height, image, pixels}: an image element and its RGBA bytes.
  async get(number) {
    const kept = this.kept.get(number) ?? this.decode(number);
    this.kept.delete(number);
    this.kept.set(number, kept); // the last used is the last to go
    if (this.kept.size > this.most) this.kept.delete(this.kept.keys().next().value);
    return kept;
  }

  async decode(number) {
    const image = new Image();
    image.src = `data:image/webp;base64,${$(`picture-${number}`).textContent}`;
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image;
    const context = surface(width, height);
    context.drawImage(image, 0, 0);
    return { width, height, image, pixels: context.getImageData(0, 0, width, height).data };
  }
}

function surface(width, height) {
  const canvas = el("canvas", { width, height });
  return canvas.getContext("2d", { willReadFrequently: true });
}

// Mean absolute difference over R, G, B of every pixel, in levels of 255.
function difference(a, b) {
  const found = new Float32Array(a.width * a.height);
  for (let k = 0, p = 0; k < found.length; k++, p += 4)
    found[k] = (Math.abs(a.pixels[p] - b.pixels[p]) + Math.abs(a.pixels[p + 1] - b.pixels[p + 1]) + Math.abs(a.pixels[p + 2] - b.pixels[p + 2])) / 3;
  return found;
}

// The last color's value: the 99.5th percentile of the worst map, up to a multiple of 8 levels.
function heatScale(maps) {
  let worst = 0;
  for (const map of maps) {
    const counts = new Uint32Array(256);
    for (const value of map) counts[Math.ceil(value)]++;
    let level = 255, beyond = counts[255];
    while (level > 0 && beyond <= map.length * 0.005) beyond += counts[--level];
    worst = Math.max(worst, level);
  }
  return 8 * Math.max(1, Math.ceil(worst / 8));
}

// 256 colors from no difference to the scale's end, as RGBA bytes.
function ramp(stops) {
  const colors = new Uint8ClampedArray(4 * 256);
  for (let k = 0; k < 256; k++) {
    const at = (k / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) colors[4 * k + c] = stops[low][c] + (at - low) * (stops[low + 1][c] - stops[low][c]);
    colors[4 * k + 3] = 255;
  }
  return colors;
}

// A map of differences as something to draw.
function heatMap(map, width, height, scale, colors) {
  const words = new Uint32Array(colors.buffer), pixels = new Uint32Array(map.length);
  for (let k = 0; k < map.length; k++) pixels[k] = words[Math.min(255, Math.round((map[k] / scale) * 255))];
  const context = surface(width, height);
  context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  return context.canvas;
}
