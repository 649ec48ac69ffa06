/* A blob under a grid: where does each way of reading a heatmap put the joint?
 *
 * Turns every <div class="peak" data-size data-x data-y data-sigma data-noise> into a figure with sliders. Plain
 * JavaScript, no library, no request. Coordinates are index pixels of the heatmap: cell i has its centre at i. The
 * decoders are those of coordreg.heatmap (Argmax, QuarterSign, QuarterSecond); a browser test compares the numbers.
 */
(function () {
  "use strict";

  // -- numbers -------------------------------------------------------------------------------------------------------

  /** Repeatable standard normal numbers (mulberry32 and Box-Muller). */
  function normals(seed, count) {
    let a = seed >>> 0;
    function uniform() {
      a = (a + 0x6d2b79f5) >>> 0;
      let t = a;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    }
    const out = [];
    while (out.length < count) {
      const r = Math.sqrt(-2 * Math.log(1 - uniform())), phi = 2 * Math.PI * uniform();
      out.push(r * Math.cos(phi), r * Math.sin(phi));
    }
    return out.slice(0, count);
  }

  /** A Gaussian with peak 1 about (x, y) plus noise, row-major. */
  function heatmap(n, x, y, sigma, noise, errors) {
    const axis = (mu) => Array.from({ length: n }, (_, i) => Math.exp((-0.5 * (i - mu) * (i - mu)) / (sigma * sigma)));
    const columns = axis(x), rows = axis(y), values = [];
    for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) values.push(rows[r] * columns[c] + noise * errors[r * n + c]);
    return values;
  }

  /** Index of the largest value; of equal values the first. */
  function largest(values, skip) {
    let best = -1;
    for (let i = 0; i < values.length; i++) if (i !== skip && (best < 0 || values[i] > values[best])) best = i;
    return best;
  }

  /** The three readings of a map, in index pixels. */
  function decode(values, n) {
    const m = largest(values, -1), x = m % n, y = Math.floor(m / n);
    const second = largest(values, m), dx = (second % n) - x, dy = Math.floor(second / n) - y, length = Math.hypot(dx, dy);
    const sx = x > 0 && x < n - 1 ? Math.sign(values[m + 1] - values[m - 1]) : 0;
    const sy = y > 0 && y < n - 1 ? Math.sign(values[m + n] - values[m - n]) : 0;
    return {
      argmax: [x, y],
      second: [x + (0.25 * dx) / length, y + (0.25 * dy) / length],
      sign: [x + 0.25 * sx, y + 0.25 * sy],
      cell: m, runnerUp: second,
    };
  }

  const METHODS = [
    ["argmax", "Argmax", "the centre of the largest cell"],
    ["second", "Quarter shift, second maximum", "a quarter cell towards the second largest cell"],
    ["sign", "Quarter shift, sign rule", "a quarter cell along each axis towards the larger neighbour"],
  ];

  /** Mean error of each reading over a lattice of true positions inside the four middle cells, fresh noise for each. */
  function average(n, sigma, noise, seed) {
    const steps = 20, sum = { argmax: 0, second: 0, sign: 0 }, draws = normals(seed + 7919, n * n * 64);
    const first = n / 2 - 1.5; // two whole cells: every offset from a centre is met equally often
    let k = 0;
    for (let i = 0; i < steps; i++) for (let j = 0; j < steps; j++, k++) {
      const x = first + (2 * (i + 0.5)) / steps, y = first + (2 * (j + 0.5)) / steps, from = (k % 64) * n * n;
      const read = decode(heatmap(n, x, y, sigma, noise, draws.slice(from, from + n * n)), n);
      for (const name in sum) sum[name] += Math.hypot(read[name][0] - x, read[name][1] - y) / (steps * steps);
    }
    return sum;
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  function svg(parent, name, attributes) {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    parent.appendChild(element);
    return element;
  }
  function html(parent, name, attributes, text) {
    const element = document.createElement(name);
    for (const key in attributes || {}) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }
  const format = (v) => (Math.abs(v) < 0.005 ? 0 : v).toFixed(2).replace("-", "\u2212");
  const point = (p) => "(" + format(p[0]) + ", " + format(p[1]) + ")";

  let count = 0;

  function build(root) {
    const id = "peak-" + ++count;
    const number = (name, otherwise) => (root.dataset[name] === undefined ? otherwise : Number(root.dataset[name]));
    const n = number("size", 8), U = 40, PAD = 22; // U: the side of a cell in the drawing's units
    const state = { x: number("x", 3.3), y: number("y", 4.15), sigma: number("sigma", 1.2), noise: number("noise", 0), seed: 1 };
    let errors = normals(state.seed, n * n), values = [], averages = null, pending = 0;
    root.replaceChildren();
    root.classList.add("peak");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "A figure to play with: a blob under a heatmap grid, read in three ways");

    // The grid.
    const board = html(root, "div", { class: "peak-board" });
    const side = n * U + PAD + 6;
    const picture = svg(board, "svg", { viewBox: `${-PAD} ${-PAD} ${side} ${side}`, role: "img", class: "peak-grid" });
    const cells = [], numbers = [];
    for (let i = 0; i < n * n; i++) {
      const at = { x: (i % n) * U, y: Math.floor(i / n) * U, width: U, height: U };
      svg(picture, "rect", { ...at, class: "peak-back" });
      cells.push(svg(picture, "rect", { ...at, class: "peak-cell" }));
      numbers.push(svg(picture, "text", { x: at.x + U / 2, y: at.y + U - 5, class: "peak-number" }));
    }
    for (let i = 0; i < n; i++) {
      svg(picture, "text", { x: (i + 0.5) * U, y: -7, class: "peak-tick" }).textContent = i;
      svg(picture, "text", { x: -11, y: (i + 0.5) * U + 4, class: "peak-tick" }).textContent = i;
    }
    const marks = {
      runnerUp: svg(picture, "rect", { width: U - 6, height: U - 6, class: "peak-runner" }),
      argmax: svg(picture, "rect", { width: U - 3, height: U - 3, class: "peak-argmax" }),
      second: svg(picture, "path", { d: "M0 -7 L7 0 L0 7 L-7 0 Z", class: "peak-mark peak-second" }),
      sign: svg(picture, "circle", { r: 5.5, class: "peak-mark peak-sign" }),
    };
    const truth = svg(picture, "g", { class: "peak-truth" });
    for (const layer of ["peak-halo", "peak-cross"]) svg(truth, "path", { d: "M-11 0 H11 M0 -11 V11", class: layer });

    // The controls.
    const panel = html(root, "div", { class: "peak-panel" });
    const controls = html(panel, "div", { class: "peak-controls" });
    const inputs = {};
    [
      ["x", "True x", 0, n - 1, 0.05],
      ["y", "True y", 0, n - 1, 0.05],
      ["sigma", "Width, \u03c3", 0.4, 3, 0.05],
      ["noise", "Noise, std", 0, 0.4, 0.01],
    ].forEach(([name, label, min, max, step]) => {
      html(controls, "label", { for: `${id}-${name}` }, label);
      inputs[name] = html(controls, "input", { type: "range", id: `${id}-${name}`, min, max, step, "data-name": name });
      inputs[name].output = html(controls, "output", { for: `${id}-${name}` });
      inputs[name].value = state[name];
      inputs[name].addEventListener("input", () => { state[name] = Number(inputs[name].value); update(name === "sigma" || name === "noise"); });
    });
    const buttons = html(panel, "div", { class: "peak-buttons" });
    const fresh = html(buttons, "button", { type: "button" }, "Draw other noise");
    fresh.addEventListener("click", () => { errors = normals(++state.seed, n * n); if (state.noise === 0) set("noise", 0.1); update(true); });
    const label = html(buttons, "label", { class: "peak-check" });
    const check = html(label, "input", { type: "checkbox" });
    html(label, "span", {}, "Show the values");
    check.addEventListener("change", () => root.classList.toggle("peak-values", check.checked));

    html(panel, "p", { class: "peak-hint" }, "Drag the cross in the grid, or use the sliders. The square is the largest cell, the dashed square the second largest.");

    // The readings.
    const readings = html(root, "div", { class: "peak-readings" });
    const table = html(readings, "table", { class: "peak-table" });
    html(table, "caption", {}, "What each reading makes of the map, in heatmap cells");
    const head = html(html(table, "thead"), "tr");
    ["Reading", "Position", "Error here", "Mean error"].forEach((t) => html(head, "th", { scope: "col" }, t));
    const body = html(table, "tbody"), rows = {};
    const truthRow = html(body, "tr", { class: "peak-row-truth" });
    const nameCell = html(truthRow, "th", { scope: "row" });
    html(nameCell, "span", { class: "peak-key peak-key-truth", "aria-hidden": "true" });
    nameCell.append("True centre");
    const truthCell = html(truthRow, "td");
    html(truthRow, "td", {}, "0.00"); html(truthRow, "td");
    METHODS.forEach(([name, title, explanation]) => {
      const row = html(body, "tr", { "data-method": name });
      const th = html(row, "th", { scope: "row", title: explanation });
      html(th, "span", { class: `peak-key peak-key-${name}`, "aria-hidden": "true" });
      th.append(title);
      rows[name] = { at: html(row, "td", { "data-what": "position" }) };
      ["error", "mean"].forEach((what) => {
        const td = html(row, "td", { "data-what": what });
        rows[name][what] = html(td, "span");
        const bar = html(td, "span", { class: "peak-bar", "aria-hidden": "true" });
        rows[name][what + "Bar"] = html(bar, "span", { class: `peak-fill peak-fill-${name}` });
      });
    });
    html(readings, "p", { class: "peak-hint" }, "Mean error: over 400 true centres spread evenly over whole cells, at this \u03c3 and this noise.");
    const live = html(readings, "p", { class: "peak-live", "aria-live": "polite" });

    function set(name, value) {
      const input = inputs[name];
      input.value = value;
      state[name] = Number(input.value); // the slider rounds to its step and keeps to its range
    }

    function place(mark, p) { mark.setAttribute("transform", `translate(${(p[0] + 0.5) * U} ${(p[1] + 0.5) * U})`); }
    function frame(mark, cell, inset) {
      mark.setAttribute("x", (cell % n) * U + inset);
      mark.setAttribute("y", Math.floor(cell / n) * U + inset);
    }

    function update(again) {
      values = heatmap(n, state.x, state.y, state.sigma, state.noise, errors);
      const read = decode(values, n), here = {};
      if (again || !averages) averages = average(n, state.sigma, state.noise, state.seed);
      const top = Math.max(...values, 1e-9);
      values.forEach((v, i) => {
        cells[i].style.fillOpacity = Math.max(0, Math.min(1, v / top)).toFixed(3);
        numbers[i].textContent = format(v);
        numbers[i].classList.toggle("peak-on-hot", v > 0.55 * top);
      });
      frame(marks.argmax, read.cell, 1.5);
      frame(marks.runnerUp, read.runnerUp, 3);
      place(marks.second, read.second);
      place(marks.sign, read.sign);
      place(truth, [state.x, state.y]);
      truthCell.textContent = point([state.x, state.y]);
      for (const name in inputs) {
        inputs[name].output.textContent = format(state[name]);
        inputs[name].setAttribute("aria-valuetext", format(state[name]));
      }
      METHODS.forEach(([name]) => {
        here[name] = Math.hypot(read[name][0] - state.x, read[name][1] - state.y);
        rows[name].at.textContent = point(read[name]);
        rows[name].error.textContent = format(here[name]);
        rows[name].mean.textContent = format(averages[name]);
        rows[name].errorBar.style.width = Math.min(100, 100 * here[name]) + "%";
        rows[name].meanBar.style.width = Math.min(100, 100 * averages[name]) + "%";
      });
      const text = `True centre ${point([state.x, state.y])}. ` + METHODS.map(([name, title]) => `${title}: ${point(read[name])}, error ${format(here[name])}`).join(". ") + ".";
      picture.setAttribute("aria-label", `Heatmap of ${n} by ${n} cells. ` + text);
      clearTimeout(pending);
      pending = setTimeout(() => { live.textContent = text; }, 600); // said once the slider rests
      root.peak = { ...state, size: n, values, ...read, errors: here, averages };
    }

    // Dragging.
    function follow(event) {
      const box = picture.getBoundingClientRect(), scale = side / box.width;
      set("x", ((event.clientX - box.left) * scale - PAD) / U - 0.5);
      set("y", ((event.clientY - box.top) * scale - PAD) / U - 0.5);
      update(false);
    }
    picture.addEventListener("pointerdown", (event) => { picture.setPointerCapture(event.pointerId); follow(event); event.preventDefault(); });
    picture.addEventListener("pointermove", (event) => { if (picture.hasPointerCapture(event.pointerId)) follow(event); });

    update(true);
  }

  function start() { document.querySelectorAll("div.peak, div.coordreg-peak").forEach(build); }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
