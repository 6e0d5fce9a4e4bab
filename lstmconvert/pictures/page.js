// The page's script: it draws the maps, answers to pointer and keys, sorts, and reads numbers out.
// It asks nothing of the network, and all text goes in through textContent.
"use strict";
const $ = (query, root = document) => root.querySelector(query);
const $$ = (query, root = document) => [...root.querySelectorAll(query)];
const make = (name, props = {}, ...children) => {
  const element = Object.assign(document.createElement(name), props);
  element.append(...children);
  return element;
};
const DIGITS = 3, MIDDLE = 20, GAP = 6, BIAS_HEIGHT = 7, MOST_PIXELS = 14, MOST_HEIGHT = 1100;
const TYPES = {4: Float32Array, 8: Float64Array};

// -- Numbers as text, as the Python side writes them ---------------------------------------------
const minus = text => text.replaceAll("-", "−");
const odd = value => Number.isNaN(value) ? "NaN" : value > 0 ? "Inf" : "−Inf";
const zero = value => Object.is(value, -0) ? "−0" : "0";
const short = text => minus(text.replace(/e([+-])0*(\d)/, (_, sign, digit) => "e" + (sign === "-" ? "-" : "") + digit));
const power = value => short(value.toExponential(DIGITS - 1));
const exact = (value, size) => {
  if (!Number.isFinite(value)) return odd(value);
  if (value === 0) return zero(value);
  if (size === 8) return short(String(value));
  for (let digits = 1; digits < 9; digits++) {
    const near = Number(value.toPrecision(digits));
    if (Math.fround(near) === value) return short(String(near));
  }
  return short(String(Number(value.toPrecision(9))));
};
const places = largest => {
  if (!largest) return DIGITS;
  const exponent = Math.floor(Math.log10(largest));
  return exponent < -4 || exponent >= 7 ? -1 : Math.max(0, DIGITS - 1 - exponent);
};
const fixed = (value, decimals) => {
  if (!Number.isFinite(value)) return odd(value);
  if (value === 0) return zero(value);
  if (decimals < 0) return power(value);
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? short(value.toExponential(0)) : minus(text);
};
const rounded = value => !Number.isFinite(value) ? odd(value)
  : value === 0 ? "0"
  : Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6 ? power(value)
  : Math.abs(value) >= 999.5 ? minus(Math.round(value).toLocaleString("en-US"))
  : fixed(value, Math.max(0, places(Math.abs(value))));

// -- Bytes ---------------------------------------------------------------------------------------
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const numbers = (text, Type) => new Type(bytes(text).buffer);
// The picture's own bytes are read, never a canvas: some browsers falsify what a canvas gives back.
const unpacked = async text => {
  const file = bytes(text), view = new DataView(file.buffer);
  const width = view.getUint32(16), height = view.getUint32(20), parts = [];
  for (let at = 8; at < file.length; at += view.getUint32(at) + 12)
    if (view.getUint32(at + 4) === 0x49444154) parts.push(file.subarray(at + 8, at + 8 + view.getUint32(at)));
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(stream).arrayBuffer());
  const result = new Uint8Array(width * height);
  for (let row = 0; row < height; row++)
    result.set(lines.subarray(row * (width + 1) + 1, (row + 1) * (width + 1)), row * width);
  return result;
};
// Distance in units of the last place: floats in order are integers in order.
const apart = (one, two, size) => {
  const view = new DataView(new ArrayBuffer(8));
  const place = value => {
    size === 8 ? view.setFloat64(0, value) : view.setFloat32(0, value);
    const bits = size === 8 ? view.getBigUint64(0) : BigInt(view.getUint32(0));
    const sign = 1n << BigInt(8 * size - 1);
    return bits & sign ? 2n * sign - 1n - bits : bits + sign;
  };
  if (Number.isNaN(one) || Number.isNaN(two)) return "";
  const distance = place(one) - place(two);
  return `${(distance < 0n ? -distance : distance).toLocaleString("en-US")} ULP`;
};

// -- Colours: from the style sheet, so that a theme is one place ---------------------------------
let palette = [];
const pixel = text => {
  const digits = text.trim().slice(1);
  const full = digits.length === 3 ? [...digits].map(digit => digit + digit).join("") : digits;
  const part = at => parseInt(full.slice(at, at + 2), 16);
  return (255 << 24 | part(4) << 16 | part(2) << 8 | part(0)) >>> 0;
};
const readPalette = () => {
  const style = getComputedStyle(document.documentElement);
  const colour = name => pixel(style.getPropertyValue("--" + name));
  palette = Array.from({length: 41}, (_, level) => colour("v" + level));
  Object.assign(palette, {odd: colour("vx"), card: colour("card"), ink: colour("ink"), line: colour("line")});
};
// Print is light whatever the screen is: the light colours are those of no media query.
const printPalette = () => {
  for (const rule of document.styleSheets[0].cssRules) {
    if (rule.selectorText !== ":root") continue;
    const colour = name => pixel(rule.style.getPropertyValue("--" + name));
    palette = Array.from({length: 41}, (_, level) => colour("v" + level));
    Object.assign(palette, {odd: colour("vx"), card: colour("card"), ink: colour("ink"), line: colour("line")});
  }
};
const level = (value, limit) => Math.floor((Math.max(-1, Math.min(1, value / (limit || 1))) + 1) * MIDDLE + .5);

// -- The bar at the bottom -----------------------------------------------------------------------
const bar = $(".out");
const say = (chip, letter, value, where, code) => {
  bar.hidden = false;
  bar.replaceChildren(
    make("b", {className: "chip " + letter, textContent: chip}),
    make("span", {className: "val", textContent: value}),
    make("span", {textContent: where}),
    ...code ? [make("code", {textContent: code})] : []);
};

// -- A board: several panels of one shape, moved through together --------------------------------
class Board {
  constructor(card, config, cell) {
    Object.assign(this, config);
    this.card = card;
    this.cell = cell;
    this.count = this.cols[1];
    this.width = Math.ceil(this.count / this.block);
    this.height = this.bands.reduce((sum, band) => sum + band.dots, 0);
    this.choice = 0;
    this.source = 0;
    this.at = [0, 0, 0];
    let top = 0;
    for (const band of this.bands) {
      band.top = top;
      top += band.dots;
    }
    this.tables = $$("table.nums", card);
    this.plots = $$(".plot", card);
    this.isTable = this.tables.length > 0;
  }
  async read() {
    const Type = TYPES[this.size], size = this.width * this.height;
    const images = $$(".plot img", this.card).map(image => image.src.slice(image.src.indexOf(",") + 1));
    this.values = [];
    for (const source of this.sources) {
      const panels = [];
      for (let panel = 0; panel < this.panels.length; panel++) {
        if (source.exact) {
          source.all ||= numbers(source.exact, Type);
          panels.push(source.all.subarray(panel * size, (panel + 1) * size));
          continue;
        }
        panels.push(await this.levels(source, panel, (source.png || images)[panel]));
      }
      this.values.push({panels, isExact: Boolean(source.exact), exactly: source.exactly || [], off: this.off, marks: source.marks});
    }
    if (this.values.length === 2 && this.values[0].isExact) {
      const others = this.values[1].panels, marks = [];
      const panels = this.values[0].panels.map((one, panel) => {
        marks[panel] = Uint8Array.from(one, (value, at) => !Object.is(value, others[panel][at]));
        return Float64Array.from(one, (value, at) => marks[panel][at] ? others[panel][at] - value : 0);
      });
      this.values.push({panels, isExact: true, exactly: [], marks});
    }
  }
  // A panel's numbers from its picture's levels, with what is known exactly put in its place.
  async levels(source, panel, picture) {
    const indices = await unpacked(picture), half = this.half;
    const [, , , centre = 0, reach = this.reach] = this.panels[panel];
    const result = new Float32Array(indices.length), known = new Uint8Array(indices.length);
    const marks = new Uint8Array(indices.length);
    (source.marks ||= [])[panel] = marks;
    indices.forEach((index, at) => {
      result[at] = index > 2 * half ? index === 2 * half + 1 ? NaN : 0 : centre + (index - half) / half * reach;
      marks[at] = index === 2 * half + 2;
    });
    const [where, what] = source.beyond[panel] || [];
    if (where) {
      const values = numbers(what, Float32Array);
      numbers(where, Uint32Array).forEach((at, index) => { result[at] = values[index]; known[at] = 1; });
    }
    const vectors = source.vectors[panel] ? numbers(source.vectors[panel], Float32Array) : [];
    let next = 0;
    for (const band of this.bands) {
      if (band.rows !== 1 || band.shape.length || !band.has.includes(this.panels[panel][0])) continue;
      if (this.block === 1)
        for (let col = 0; col < this.width; col++) {
          result[band.top * this.width + col] = vectors[next + col];
          known[band.top * this.width + col] = 1;
        }
      next += this.count;
    }
    (source.exactly ||= [])[panel] = known;
    return result;
  }
  // The difference of two sources that are equal in every bit.
  nothing() {
    const size = this.width * this.height;
    const fill = () => this.panels.map(() => new Uint8Array(size));
    return {panels: fill(), isExact: true, exactly: [], marks: fill()};
  }
  get limit() {
    return this.source === 2 ? this.changeLimit : this.limits[this.choice][1];
  }
  get isDifference() { return this.source === 2 || Boolean(this.difference); }
  // Which real rows and columns stand where: each place holds one, or a block of neighbours.
  arrange() {
    const order = this.block === 1 ? this.cell.order : null;
    const follow = (count, inner) => Array.from({length: count}, (_, row) =>
      row - row % inner + order[row % inner]);
    const plain = count => Array.from({length: count}, (_, row) => row);
    const grouped = (list, size) => Array.from({length: Math.ceil(list.length / size)}, (_, at) =>
      list.slice(at * size, (at + 1) * size));
    const units = order ? order.length : 0;
    const cols = order && this.cols[2] ? follow(this.count, units) : plain(this.width);
    this.viewCols = grouped(cols, this.groupCols || 1);
    this.viewRows = [];
    for (const band of this.bands) {
      band.from = this.viewRows.length;
      const rows = order && band.follow && band.dots % units === 0 ? follow(band.dots, units) : plain(band.dots);
      for (const group of grouped(rows, this.groupRows || 1))
        this.viewRows.push(group.map(row => band.top + row));
      band.to = this.viewRows.length;
    }
  }
  // The number farthest from the centre of a place, and where it really is.
  look(panel, row, col) {
    const rows = this.viewRows[row], cols = this.viewCols[col];
    if (rows.length === 1 && cols.length === 1) return rows[0] * this.width + cols[0];
    const data = this.values[this.source].panels[panel], [, , , centre = 0] = this.panels[panel];
    let place = -1, far = -1;
    for (const r of rows)
      for (const c of cols) {
        const at = r * this.width + c, size = Math.abs(data[at] - centre);
        if (!(size <= far)) {
          place = at;
          far = Number.isNaN(size) ? Infinity : size;
        }
      }
    return place;
  }
  // A row of biases is no thinner than the eye needs.
  tall(band) {
    return band.shape.length ? this.stepY : Math.max(this.stepY, Math.round(BIAS_HEIGHT * (devicePixelRatio || 1)));
  }
  band(row) { return this.bands.find(band => row >= band.from && row < band.to); }
  has(panel, row) { return this.band(row).has.includes(this.panels[panel][0]); }
  draw() {
    if (this.isTable) return this.fill();
    if (!this.values) return;
    const ratio = devicePixelRatio || 1;
    this.plots.forEach((plot, panel) => {
      const canvas = $("canvas", plot), context = canvas.getContext("2d");
      const {stepX, stepY} = this, isTime = this.kind === "t";
      const gap = isTime ? 0 : Math.round(GAP * ratio);
      const width = this.viewCols.length * stepX;
      this.tops = [];
      let height = 0;
      for (const band of this.bands) {
        if (band.from) height += gap;
        for (let row = band.from; row < band.to; row++, height += this.tall(band)) this.tops[row] = height;
      }
      canvas.width = width;
      canvas.height = height;
      canvas.style.width = width / ratio + "px";
      canvas.style.height = height / ratio + "px";
      const image = context.createImageData(width, height), dots = new Uint32Array(image.data.buffer);
      const [, , , centre = 0, reach] = this.panels[panel];
      const {panels, marks} = this.values[this.source], data = panels[panel], limit = reach === undefined ? this.limit : reach;
      const skipped = this.masked && new Set(this.masked);
      const line = isTime && Math.min(stepX, stepY) >= 6 ? 1 : 0;
      for (let row = 0; row < this.viewRows.length; row++) {
        if (!this.has(panel, row)) continue;
        const tall = this.tall(this.band(row));
        for (let col = 0; col < this.viewCols.length; col++) {
          const at = this.look(panel, row, col), value = data[at] - centre;
          const colour = Number.isFinite(value) ? palette[level(value, limit)] : palette.odd;
          const isMarked = marks?.[panel][at] && level(value, limit) === MIDDLE;
          const isMasked = skipped?.has(this.viewCols[col][0]);
          for (let y = 0; y < tall - line; y++)
            for (let x = 0; x < stepX - line; x++) {
              let ink = colour;
              if (isMasked) ink = (x + y) % 4 < 2 ? palette.line : palette.card;
              else if (isMarked && Math.abs(2 * x - stepX + 1) < Math.max(1, stepX / 2) && Math.abs(2 * y - tall + 1) < Math.max(1, tall / 2)) ink = palette.ink;
              dots[(this.tops[row] + y) * width + col * stepX + x] = ink;
            }
        }
      }
      context.putImageData(image, 0, 0);
      plot.parentElement.style.setProperty("--w", width / ratio + (isTime ? 0 : 18) + "px");
      this.bands.forEach((band, index) => {
        const letter = $$("var", plot)[index];
        if (letter) letter.style.top = (this.tops[band.from] + (band.to - band.from) * this.tall(band) / 2) / ratio + "px";
      });
    });
    const groups = [this.groupRows, this.groupCols];
    $$(".blocks", this.card).forEach(element => {
      element.textContent = Math.max(...groups) > 1
        ? ` Each dot here: the weight farthest from 0 of ${groups.join("×")}.` : "";
    });
    this.mark();
  }
  // Whole device pixels for each number; if there are more numbers than pixels, blocks of them.
  layout() {
    if (this.isTable || !this.values) return;
    const ratio = devicePixelRatio || 1, isTime = this.kind === "t";
    const room = Math.max(40, this.plots[0].clientWidth - (isTime ? 0 : 18)) * ratio;
    const large = this.card.querySelector(".large");
    const most = (isTime ? 28 : MOST_PIXELS) * ratio;
    this.groupCols = Math.max(1, Math.ceil(this.width / room));
    this.stepX = Math.max(1, Math.min(Math.floor(most), Math.floor(room / Math.ceil(this.width / this.groupCols))));
    const rows = this.height;
    if (isTime) {
      this.stepY = Math.max(1, Math.min(Math.round(18 * ratio), Math.floor(220 * ratio / rows)));
      this.groupRows = 1;
    } else {
      this.stepY = this.stepX;
      const highest = (large ? 3 : 1) * MOST_HEIGHT * ratio;
      this.groupRows = Math.max(this.groupCols, Math.ceil(rows * this.stepY / highest));
    }
    this.arrange();
    this.draw();
  }
  start() {
    this.plots.forEach((plot, panel) => {
      plot.classList.add("live");
      plot.tabIndex = panel ? -1 : 0;
      plot.append(make("canvas"), make("div", {className: "cr"}), make("div", {className: "cc"}));
      if (this.kind !== "t")
        for (const band of this.bands) plot.append(make("var", {textContent: band.letter}));
      const find = event => {
        const box = $("canvas", plot).getBoundingClientRect(), ratio = devicePixelRatio || 1;
        const x = (event.clientX - box.left) * ratio, y = (event.clientY - box.top) * ratio;
        const col = Math.min(this.viewCols.length - 1, Math.max(0, Math.floor(x / this.stepX)));
        let row = 0;
        while (row + 1 < this.tops.length && this.tops[row + 1] <= y) row++;
        return [panel, row, col];
      };
      plot.addEventListener("pointermove", event => this.select(...find(event)));
      plot.addEventListener("pointerdown", event => this.select(...find(event)));
      plot.addEventListener("pointerleave", () => plot.matches(":focus") || this.clear());
      plot.addEventListener("focus", () => this.select(panel, this.at[1], this.at[2]));
      plot.addEventListener("blur", () => this.clear());
      plot.addEventListener("keydown", event => this.key(event, panel));
    });
    this.tables.forEach((table, panel) => {
      const rows = $$("tbody tr", table);
      this.grid ||= [];
      this.grid[panel] = rows.map(row => $$("td", row));
      this.rowElements ||= [];
      this.rowElements[panel] = rows;
      this.heads ||= [];
      this.heads[panel] = $$("thead th", table).slice(1);
      this.grid[panel].forEach((row, r) => row.forEach((element, c) => {
        element.tabIndex = panel || r || c ? -1 : 0;
        element.place = [panel, r, c];
      }));
      const find = event => event.target.closest("td")?.place;
      const select = event => {
        const place = find(event);
        if (place) this.select(...this.shown(...place));
      };
      table.addEventListener("pointerover", select);
      table.addEventListener("focusin", select);
      table.addEventListener("keydown", event => this.key(event, panel));
      table.addEventListener("pointerleave", () => this.clear());
    });
    for (const select of $$("select", this.card))
      select.addEventListener("change", () => {
        this.choice = Number(select.value);
        this.legend();
        this.draw();
      });
    for (const radio of $$(".which input", this.card))
      radio.addEventListener("change", () => {
        this.source = Number(radio.value);
        this.legend();
        this.draw();
        this.notes[this.source]?.forEach((text, panel) => {
          $$(".big", this.card)[panel].textContent = text;
        });
      });
  }
  // A table's real place, as it is shown.
  shown(panel, row, col) {
    return [panel, this.viewRows.findIndex(rows => rows[0] === row), this.viewCols.findIndex(cols => cols[0] === col)];
  }
  // Put a table's cells into the order of the units, and write the numbers of the source shown.
  fill() {
    const decimals = places(this.limit);
    this.grid.forEach((grid, panel) => {
      const data = this.values?.[this.source].panels[panel], marks = this.isDifference && this.values[this.source].marks;
      const heads = this.heads[panel];
      heads[0].parentElement.append(...this.viewCols.map(([col]) => heads[col]));
      this.viewRows.forEach(([r], index) => {
        const row = this.rowElements[panel][r];
        row.append(...this.viewCols.map(([col]) => grid[r][col]));
        row.parentElement.append(row);
        if (!data || !this.has(panel, index)) return;
        grid[r].forEach((element, col) => {
          const value = data[r * this.width + col];
          const isSame = marks && !marks[panel][r * this.width + col];
          element.className = Number.isFinite(value) ? isSame ? "same" : "v" + level(value, this.limit) : "vx";
          element.textContent = isSame ? "=" : fixed(value, decimals);
          element.title = Object.is(value, -0) && !marks ? "minus zero, as stored" : "";
        });
      });
    });
  }
  legend() {
    const legend = $(".legend", this.card), text = rounded(this.limit);
    const [, , beyond] = this.limits[this.choice];
    const isClipped = beyond && !this.isDifference;
    const ends = $$(".ticks span", legend);
    ends[0].textContent = (isClipped ? "≤ −" : "−") + text;
    ends[2].textContent = (isClipped ? "≥ " : "") + text;
    $(".bar", legend).setAttribute("aria-label", `Colour scale from minus ${text}, blue, through 0, grey, to ${text}, orange`);
    const note = $(".bt", legend);
    if (note) note.textContent = isClipped ? beyond : "";
  }
  select(panel, row, col) {
    if (!this.values || row < 0 || col < 0) return;
    this.at = [panel, row, col];
    this.mark(true);
    if (this.has(panel, row)) this.tell(panel, row, col);
    else say(this.panels[panel][1], this.panels[panel][0], "—", `the ${this.panels[panel][1]} has no ${this.band(row).row}`);
    this.cell.point(this.unitAt(row, col), this);
  }
  unitAt(row, col) {
    const at = this.kind === "t" ? this.viewRows[row][0] : this.cols[2] ? this.viewCols[col][0] : -1;
    return this.block === 1 ? at : -1;
  }
  tell(panel, row, col) {
    const band = this.band(row), at = this.look(panel, row, col);
    const r = Math.floor(at / this.width) - band.top, c = at % this.width, [key, name] = this.panels[panel];
    const parts = this.values.map((source, index) => this.value(source, panel, at, index));
    let value = parts[0];
    const change = this.values[2];
    if (change?.isExact && !change.marks[panel][at]) value = `${parts[0]} in A and B, the same bits`;
    else if (change) {
      value = `A ${parts[0]} · B ${parts[1]} · B − A ${parts[2]}`;
      if (change.isExact)
        value += ` (${apart(...[0, 1].map(index => this.values[index].panels[panel][at]), this.size)})`;
    }
    say(name, key, value, ...this.where(band, panel, r, c));
  }
  value(source, panel, at, index) {
    const value = source.panels[panel][at];
    const isChange = index === 2 || this.difference;
    if (isChange && source.marks && source.isExact && !source.marks[panel][at]) return "0, the same bits";
    if (source.isExact || source.exactly[panel]?.[at] || !Number.isFinite(value))
      return isChange ? rounded(value) : exact(value, this.size);
    if (source.marks?.[panel][at]) return `not 0, below ${rounded(source.off)}`;
    const [, , , , reach] = this.panels[panel];
    const off = reach === undefined ? source.off : this.step(reach);
    const decimals = Math.min(20, Math.max(0, -Math.floor(Math.log10(off))));
    return `≈ ${minus(value.toFixed(decimals))} ±${short(String(off))}`;
  }
  // Half a step between levels, rounded up to one digit.
  step(reach) {
    const half = reach / this.half / 2, size = 10 ** Math.floor(Math.log10(half));
    return Number((Math.ceil(half / size - 1e-9) * size).toPrecision(1));
  }
  where(band, panel, r, c) {
    const [column] = this.cols, size = this.block;
    const span = (at, count) => size === 1 ? at : `${at * size} to ${Math.min(count, (at + 1) * size) - 1}`;
    const slice = (at, count, from = 0) => size === 1 ? from + at : `${from + at * size}:${from + Math.min(count, (at + 1) * size)}`;
    if (this.kind === "t") {
      const skipped = this.masked.includes(c) ? ", masked" : "";
      return [`step ${c}${skipped}, ${band.row} ${r}`, ""];
    }
    const start = band.has.indexOf(this.panels[panel][0]) * this.count, target = `${column} ${span(c, this.count)}`;
    if (!band.shape.length)
      return [`${band.row} of ${target}`, `${band.name}[${slice(c, this.count, start)}]`];
    if (band.shape.length === 1)
      return [`${band.row} ${span(r, band.rows)} → ${target}`, `${band.name}[${slice(r, band.rows)}, ${slice(c, this.count, start)}]`];
    const index = [];
    let rest = r;
    for (const length of [...band.shape].reverse()) {
      index.unshift(rest % length);
      rest = Math.floor(rest / length);
    }
    if (size > 1) return [`rows ${span(r, band.rows)} → ${target}`, band.name];
    const from = `${band.row} ${index.at(-1)} at ${index.slice(0, -1).join(",")}`;
    return [`${from} → ${target}`, `${band.name}[${index.join(", ")}, ${start + c}]`];
  }
  // Lines along the row and the column in all panels; in tables, frames.
  mark(isOn = this.isOn) {
    this.isOn = isOn;
    const [panel, row, col] = this.at, ratio = devicePixelRatio || 1;
    for (const element of $$(".on", this.card)) if (!element.closest(".ut")) element.classList.remove("on");
    if (this.isTable) {
      if (isOn && this.viewRows[row]) {
        const r = this.viewRows[row][0], c = this.viewCols[col][0];
        this.grid.forEach((grid, index) => {
          grid[r]?.[c]?.classList.add("on");
          this.heads[index][c].classList.add("on");
          $("th", this.rowElements[index][r]).classList.add("on");
        });
      }
      return;
    }
    for (const plot of this.plots) {
      plot.classList.toggle("sel", Boolean(isOn));
      if (!isOn || this.tops[row] === undefined) continue;
      const canvas = $("canvas", plot), left = canvas.offsetLeft, [line, column] = [$(".cr", plot), $(".cc", plot)];
      const place = (element, x, y, width, height) => Object.assign(element.style, {
        left: left + x / ratio - 1 + "px", top: y / ratio - 1 + "px",
        width: width / ratio + 2 + "px", height: height / ratio + 2 + "px"});
      place(line, 0, this.tops[row], canvas.width, this.tall(this.band(row)));
      place(column, col * this.stepX, 0, this.stepX, canvas.height);
    }
    void panel;
  }
  clear() {
    this.mark(false);
    this.cell.point(-1, this);
  }
  key(event, panel) {
    if (event.ctrlKey || event.altKey || event.metaKey || !this.values) return;
    let [, row, col] = this.at;
    const rows = this.viewRows.length, cols = this.viewCols.length, many = event.shiftKey ? 10 : 1;
    const turn = step => {
      const next = panel + step;
      if (next < 0 || next >= this.panels.length) return false;
      panel = next;
      return true;
    };
    const bandOf = this.band(row), index = this.bands.indexOf(bandOf);
    const keys = {
      ArrowLeft: () => { if (col === 0 && turn(-1)) col = cols - 1; else col = Math.max(0, col - many); },
      ArrowRight: () => { if (col === cols - 1 && turn(1)) col = 0; else col = Math.min(cols - 1, col + many); },
      ArrowUp: () => { row = Math.max(0, row - many); },
      ArrowDown: () => { row = Math.min(rows - 1, row + many); },
      Home: () => { col = 0; },
      End: () => { col = cols - 1; },
      PageUp: () => { row = (row > bandOf.from ? bandOf : this.bands[Math.max(0, index - 1)]).from; },
      PageDown: () => { row = index + 1 < this.bands.length ? this.bands[index + 1].from : rows - 1; },
      m: () => {
        let far = -1;
        for (let r = 0; r < rows; r++)
          for (let c = 0; c < cols; c++) {
            const size = Math.abs(this.values[this.source].panels[panel][this.look(panel, r, c)]);
            if (this.has(panel, r) && size > far) [far, row, col] = [size, r, c];
          }
      },
      Enter: () => this.cell.go(this.unitAt(row, col)),
    };
    this.panels.forEach(([key], number) => { keys[key] ||= () => { panel = number; }; });
    const act = keys[event.key] || keys[event.key.length === 1 ? event.key.toLowerCase() : ""];
    if (!act) return;
    event.preventDefault();
    const before = document.activeElement;
    act();
    if (event.key === "Enter" && document.activeElement !== before) return;
    this.at = [panel, row, col];
    if (this.isTable) {
      const target = this.grid[panel][this.viewRows[row][0]][this.viewCols[col][0]];
      $$("td[tabindex='0']", this.card).forEach(element => { element.tabIndex = -1; });
      target.tabIndex = 0;
      target.focus();
    } else {
      this.plots.forEach((plot, number) => { plot.tabIndex = number === panel ? 0 : -1; });
      this.plots[panel].focus();
      this.select(panel, row, col);
    }
  }
  // A unit is pointed at elsewhere: mark its column here.
  point(unit) {
    if (!this.values) return;
    const isTime = this.kind === "t";
    if (unit < 0 || this.block > 1) return this.mark(false);
    const views = isTime ? this.viewRows : this.cols[2] ? this.viewCols : [];
    const at = views.findIndex(group => group.includes(unit));
    if (at < 0) return;
    this.at = isTime ? [this.at[0], at, this.at[2]] : [this.at[0], this.at[1], at];
    this.mark(true);
  }
}

// -- A cell: its cards, which share the order of the units ---------------------------------------
class CellView {
  constructor(section) {
    this.section = section;
    this.table = $(".ut", section);
    this.rows = this.table ? $$("tbody tr", this.table) : [];
    this.order = this.rows.map((_, unit) => unit);
    this.boards = $$(".data", section).map(element =>
      new Board(element.closest(".time") || element.closest(".card"), JSON.parse(element.textContent), this));
    this.status = $(".sr-status");
    this.light();
    this.sorting();
  }
  async start() {
    for (const board of this.boards) await board.read();
    // B − A is in the cards of the gates and of the difference: whichever has it lends it.
    const [gates] = this.boards, change = this.boards.find(board => board.difference);
    if (gates && gates.values.length > 1) {
      gates.changeLimit = change ? change.limits[0][1] : 1;
      if (!change) gates.values[2] ||= gates.nothing();
      else if (gates.values[2]) change.values = [gates.values[2]];
      else gates.values[2] = change.values[0];
    }
    for (const board of this.boards) board.start();
    this.layout();
  }
  layout() {
    for (const board of this.boards) {
      board.arrange();
      board.isTable ? board.mark() : board.layout();
    }
  }
  // Hover, focus and pins light a gate: its columns, its term and its panels.
  light() {
    const section = this.section, of = event => event.target.closest("[data-g]")?.dataset.g;
    let pinned = "";
    const show = gate => gate ? section.dataset.hl = gate : delete section.dataset.hl;
    for (const name of ["pointerover", "focusin"])
      section.addEventListener(name, event => show(of(event) || pinned));
    for (const name of ["pointerleave", "focusout"])
      section.addEventListener(name, () => show(pinned));
    section.addEventListener("click", event => {
      const button = event.target.closest("button[data-g]");
      if (!button) return;
      pinned = pinned === button.dataset.g ? "" : button.dataset.g;
      for (const other of $$("button[data-g]", section))
        other.setAttribute("aria-pressed", String(other.dataset.g === pinned));
      show(pinned);
    });
    for (const button of $$(".ex", section))
      button.addEventListener("click", () => {
        const panels = button.closest(".panels"), isLarge = panels.classList.toggle("large");
        for (const other of $$(".ex", panels)) other.setAttribute("aria-pressed", String(isLarge));
        this.layout();
      });
  }
  // A unit's row, from any picture, and its column in the pictures, from its row.
  point(unit, from) {
    this.rows.forEach((row, index) => row.classList.toggle("on", index === unit));
    for (const board of this.boards) if (board !== from) board.point(unit);
  }
  go(unit) {
    const row = this.rows[unit];
    if (!row) return;
    this.reach(row);
    $("th", row).focus();
  }
  reach(row) {
    for (const other of this.rows) $("th", other).tabIndex = -1;
    $("th", row).tabIndex = 0;
  }
  sorting() {
    if (!this.table) return;
    const body = $("tbody", this.table), heads = $$("thead th", this.table);
    const number = text => {
      if (text.includes("—")) return NaN;
      const plain = text.trim().replace("−", "-").replaceAll(",", "").replace("∞", "Infinity");
      return plain === "" || plain === "NaN" ? NaN : Number(plain);
    };
    // Bars for the norms, on one scale for all gates.
    const norms = this.rows.map(row => [3, 4, 5, 6].map(column => number(row.children[column].textContent)));
    const widest = Math.max(...norms.flat().filter(Number.isFinite));
    this.rows.forEach((row, unit) => norms[unit].forEach((norm, gate) => {
      if (!Number.isFinite(norm)) return;
      const stripe = make("i");
      stripe.style.width = 3.2 * norm / widest + "em";
      row.children[3 + gate].prepend(stripe);
    }));
    heads.forEach((head, column) => $("button", head).addEventListener("click", () => {
      const isUp = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const last = heads.length - 1;
      const keys = this.rows.map(row => {
        const text = row.children[column].textContent;
        return column === last ? text ? 0 : 1 : number(text);
      });
      const sign = isUp ? 1 : -1;
      this.order = this.rows.map((_, unit) => unit).sort((a, b) => {
        if (Number.isNaN(keys[a]) || Number.isNaN(keys[b])) return Number.isNaN(keys[a]) - Number.isNaN(keys[b]) || a - b;
        return keys[a] === keys[b] ? a - b : keys[a] < keys[b] ? -sign : sign;
      });
      body.append(...this.order.map(unit => this.rows[unit]));
      for (const board of this.boards) {
        board.arrange();
        board.draw();
      }
      $(".said").textContent = `Sorted by ${$("button", head).textContent}, ${isUp ? "ascending" : "descending"}. The pictures follow.`;
    }));
    this.rows.forEach((row, unit) => {
      const head = $("th", row);
      head.tabIndex = unit ? -1 : 0;
      row.addEventListener("pointerenter", () => this.point(unit));
      head.addEventListener("focus", () => this.point(unit));
      head.addEventListener("keydown", event => {
        const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
        const next = step && this.rows[this.order[this.order.indexOf(unit) + step]];
        if (!next) return;
        event.preventDefault();
        this.reach(next);
        $("th", next).focus();
      });
    });
    body.addEventListener("pointerleave", () => this.point(-1));
    body.addEventListener("focusout", () => this.point(-1));
  }
}

const cells = $$(".cell").map(section => new CellView(section));
const redraw = () => { for (const cell of cells) for (const board of cell.boards) if (!board.isTable) board.draw(); };
readPalette();
(async () => {
  for (const cell of cells) await cell.start();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    for (const cell of cells) cell.layout();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); redraw(); });
  addEventListener("beforeprint", () => {
    for (const details of $$("details")) details.open = true;
    printPalette();
    redraw();
  });
  addEventListener("afterprint", () => { readPalette(); redraw(); });
  document.documentElement.dataset.ready = "1";
})();
