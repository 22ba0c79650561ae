"use strict";
// What both pages share: asking the service, and showing one result.

const at = id => document.getElementById(id);

/** An element with properties (attributes where the name has a dash) and children. */
function make(tag, values = {}, ...children) {
  const own = document.createElement(tag);
  for (const [name, value] of Object.entries(values))
    if (name.includes("-") || name === "role") own.setAttribute(name, value);
    else own[name] = value;
  own.append(...children.filter(child => child != null));
  return own;
}

function draw(tag, values, ...children) {
  const own = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) own.setAttribute(name, value);
  own.append(...children);
  return own;
}

function say(text, bad = false) {
  at("told").textContent = text;
  at("told").classList.toggle("bad", bad);
}

function number(value) { return value == null ? "–" : value.toFixed(3); }

/** A path that folds after its slashes. */
function folding(path) { return path.split(/(?<=\/)/).flatMap(part => [make("wbr"), part]); }

function capital(text) { return text.slice(0, 1).toUpperCase() + text.slice(1); }


// asking

let key = "", asking = null;

function keyGiven() {
  asking ??= new Promise(resolve => {
    at("asked").hidden = false;
    say("A key is needed.", true);
    at("key").focus();
    at("asked").onsubmit = event => {
      event.preventDefault();
      key = at("key").value.trim();
      at("asked").hidden = true;
      asking = null;
      say("");
      resolve();
    };
  });
  return asking;
}

/** The service's answer, once it lets us in and is not busy. */
async function ask(path, options = {}) {
  for (;;) {
    const answer = await fetch(path, {...options, headers: key ? {"X-API-Key": key} : {}});
    const notice = answer.headers.get("Funduscope-Notice");
    if (notice) at("notice").textContent = notice;
    if (answer.status === 401) await keyGiven();
    else if (answer.status === 429 || (answer.status === 503 && answer.headers.has("Retry-After"))) {
      say("The service is busy; waiting …");
      await new Promise(resolve => setTimeout(resolve, 1000 * (+answer.headers.get("Retry-After") || 1)));
    } else return answer;
  }
}

async function asJson(path) {
  const answer = await ask(path);
  if (!answer.ok) throw new Error(await refusal(answer));
  return answer.json();
}

async function refusal(answer) {
  try { return (await answer.json()).detail; }
  catch { return `the service answered ${answer.status}`; }
}

async function asUrl(path, options) {
  const answer = await ask(path, options);
  return answer.ok ? URL.createObjectURL(await answer.blob()) : null;
}

let asked = null;
/** What the open models decide, asked for once. */
function catalogue() {
  asked ??= asJson("v1/models").catch(error => { asked = null; throw error; });
  return asked;
}


// a picture with its layers, to zoom and pan

const NEAREST = 8;  // screen pixels of one of the picture

class Viewer {
  /** own: the element to place. */
  constructor(name) {
    this.stage = make("div", {className: "stage"});
    this.box = make("div", {
      className: "viewer", tabIndex: 0, role: "group",
      "aria-label": `${name}. Plus and minus zoom, arrow keys move, 0 shows the whole picture.`,
    }, this.stage);
    const press = (label, text, act) => {
      const button = make("button", {type: "button", "aria-label": `${label}: ${name}`, title: label}, text);
      button.addEventListener("click", act);
      return button;
    };
    this.tools = make("p", {className: "row tools"},
      press("Zoom in", "+", () => this.zoom(1.5)),
      press("Zoom out", "−", () => this.zoom(1 / 1.5)),
      press("Whole picture", "Whole", () => this.fit()));
    this.own = make("div", {}, this.box, this.tools);
    this.size = [1, 1];
    this.scale = this.x = this.y = 0;
    this.fits = true;
    this.fingers = new Map();
    new ResizeObserver(() => this.fits ? this.fit() : this.place()).observe(this.box);
    this.box.addEventListener("keydown", event => this.key(event));
    this.box.addEventListener("wheel", event => {
      if (!event.ctrlKey && this.box !== document.activeElement) return;  // a page that is scrolled past it goes on
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), ...this.within(event));
    }, {passive: false});
    this.box.addEventListener("dblclick", event => this.zoom(2, ...this.within(event)));
    this.box.addEventListener("pointerdown", event => {
      this.box.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, this.within(event));
    });
    this.box.addEventListener("pointermove", event => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"])
      this.box.addEventListener(kind, event => this.fingers.delete(event.pointerId));
  }

  show(width, height, ...layers) {
    this.size = [width, height];
    this.stage.replaceChildren(...layers);
    this.fit();
  }

  get whole() { return Math.min(this.box.clientWidth / this.size[0], this.box.clientHeight / this.size[1]); }

  fit() {
    this.scale = this.whole;
    this.place();
  }

  zoom(factor, x = this.box.clientWidth / 2, y = this.box.clientHeight / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.whole), Math.max(NEAREST, this.whole));
    this.x = x - (x - this.x) * scale / this.scale;
    this.y = y - (y - this.y) * scale / this.scale;
    this.scale = scale;
    this.place();
  }

  /** Put the stage where it is to be, without a gap at a border that can be filled. */
  place() {
    const [width, height] = this.size.map(side => side * this.scale);
    const kept = (start, size, room) => size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, start));
    this.x = kept(this.x, width, this.box.clientWidth);
    this.y = kept(this.y, height, this.box.clientHeight);
    this.fits = this.scale <= this.whole;
    this.box.classList.toggle("near", !this.fits);
    Object.assign(this.stage.style, {left: `${this.x}px`, top: `${this.y}px`, width: `${width}px`, height: `${height}px`});
  }

  move(dx, dy) { this.x += dx; this.y += dy; this.place(); }

  key(event) {
    const step = 60, acts = {
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), "0": () => this.fit(),
      ArrowLeft: () => this.move(step, 0), ArrowRight: () => this.move(-step, 0),
      ArrowUp: () => this.move(0, step), ArrowDown: () => this.move(0, -step),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in acts)) return;
    if (event.key.startsWith("Arrow") && this.fits) return;  // then they scroll the page
    event.preventDefault();
    acts[event.key]();
  }

  drag(event) {
    const before = this.fingers.get(event.pointerId), now = this.within(event);
    if (!before) return;
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = point => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (!this.fits) this.move(now[0] - before[0], now[1] - before[1]);
    this.fingers.set(event.pointerId, now);
  }

  within(event) {
    const box = this.box.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
}

/** Contours and fovea as layers, by name; coordinates are the photo's pixels, whose centres are whole numbers. */
function drawings(layers, width, height) {
  const lines = Object.entries(layers.contours).map(([part, points]) =>
    draw("polygon", {class: part, points: points.map(([x, y]) => `${x + .5},${y + .5}`).join(" ")}));
  const whole = {viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"}, found = {};
  if (lines.length) found.contours = draw("svg", whole, ...lines);
  if (layers.fovea) {
    const [x, y] = layers.fovea.map(value => value + .5), arm = Math.max(width, height) / 60;
    found.fovea = draw("svg", whole, draw("g", {class: "fovea"},
      draw("circle", {cx: x, cy: y, r: arm}), draw("path", {d: `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`})));
  }
  for (const [disease, url] of Object.entries(layers.heat)) found[disease] = make("img", {src: url, alt: ""});
  return found;
}


// one result

const ADVICE = {
  refer: "At least one disease is called: refer to an eye specialist.",
  open: "Something is open: too near to its threshold to say, or not measurable. It needs a person.",
  warned: "Nothing is called, but see the warnings: it needs a person.",
  no: "Nothing is called. That does not rule out disease; symptoms need a person in any case.",
  ungradable: "No result: take the photograph again, or have a person look at it.",
  error: "No result: the file cannot be screened. Send it as the camera has it.",
};
const WARNINGS = {
  DISC_NOT_FOUND: "no optic disc was found, so glaucoma is open",
  CUP_NOT_FOUND: "no cup was found within the disc",
  FOVEA_NOT_FOUND: "no fovea was found",
  LATERALITY_CONFLICT: "it is not clear which eye this is",
  GLAUCOMA_DISAGREEMENT: "the two opinions on glaucoma differ",
  GLAUCOMA_UNCERTAIN: "the second opinion on glaucoma is open",
  DR_UNCERTAIN: "referable retinopathy is open",
  ANY_DR_UNCERTAIN: "any retinopathy is open",
  DISC_IMPLAUSIBLE: "what was found is no disc by size or shape, so glaucoma is open",
  DISC_OVEREXPOSED: "part of the disc is burnt out, so glaucoma is less sure; take it again with less flash",
  SIDEWAYS: "the picture lies on its side, so glaucoma is open; turn it",
  LOW_RESOLUTION: "too few pixels for some decisions, which are open",
  NOT_ROUND: "the field of view is not quite round",
  END_MISSING: "the JPEG lacks its end marker",
  RANGE_ASSUMED: "the range of brightness was assumed",
};
const FAULTS = {not_a_fundus: "not a retina", dark: "dark", overexposed: "overexposed", blurred: "blurred"};
const SHOWN = ["contours", "fovea"];  // the layers that are there at first
const WORDS = new Map([[true, "refer"], [false, "no"], [null, "open"]]);

function word(called) { return WORDS.get(called ?? null); }

/** A cell with a verdict's word. */
function called(value) { return make("span", {className: `call ${word(value)}`}, word(value)); }

/** The verdicts, each with its operating points where the model that gave it is open. */
function pointed(verdicts, open, row) {
  const same = open.models.filter(model => row.model_sha256.includes(model.sha256)).flatMap(model => model.verdicts);
  return verdicts.map(own => ({...own, points: same.find(other => other.name === own.name)?.points ?? []}));
}

/** What the verdicts come to. The second opinion counts where there is no first. */
function advice(row, verdicts) {
  if (row.status !== "ok") return ADVICE[row.status];
  const first = verdicts.filter((own, k) => verdicts.findIndex(other => other.disease === own.disease) === k);
  const calls = first.map(own => row[own.name]);
  if (calls.includes(true)) return ADVICE.refer;
  if (calls.some(value => value == null)) return ADVICE.open;
  return row.warnings.length ? ADVICE.warned : ADVICE.no;
}

function rate(name, estimate) { return `${name} ${estimate.value.toFixed(2)} (${estimate.low.toFixed(2)} to ${estimate.high.toFixed(2)})`; }

/** A score on its scale: its bar, the threshold, the band in which it is left open, and the model's other points. */
function scored(row, verdict) {
  const score = row[verdict.name + "_probability"], from = row[verdict.name + "_threshold"];
  const point = verdict.points.find(own => own.threshold === from), band = point?.uncertain;
  const part = (kind, left, width) => {
    const own = make("span", {className: kind});
    own.style.left = `${100 * left}%`;
    if (width != null) own.style.width = `${100 * width}%`;
    return own;
  };
  const told = [
    from == null ? null : `refer from ${number(from)}`,
    band && band.low < band.high ? `open from ${number(band.low)} to ${number(band.high)}` : null,
  ].filter(Boolean).join("; ");
  const cell = make("td", {role: "cell"}, number(score));
  if (score != null) {
    const scale = make("div", {className: "scale", "aria-hidden": "true"}, part("score", 0, score));
    if (band && band.low < band.high) scale.append(part("doubt", band.low, band.high - band.low));
    for (const own of verdict.points) if (own !== point && own.sensitivity) scale.append(part("point", own.threshold));
    if (from != null) scale.append(part("from", from));
    cell.append(scale);
  }
  if (told) cell.append(make("div", {className: "hint"}, told));
  if (score != null && from != null && row[verdict.name] != null && row[verdict.name] !== score >= from)
    cell.append(make("div", {className: "hint"}, "called because a narrower verdict is"));
  return cell;
}

function table(row, verdicts) {
  const body = make("tbody", {role: "rowgroup"});
  for (const own of verdicts) {
    const hint = own.disease_title === own.title ? null : make("div", {className: "hint"}, own.disease_title);
    body.append(make("tr", {role: "row"}, make("th", {scope: "row", role: "rowheader"}, capital(own.title), hint),
      make("td", {role: "cell"}, called(row[own.name])), scored(row, own)));
  }
  const heads = ["What", "Called", "Score, 0 to 1"].map(text => make("th", {scope: "col", role: "columnheader"}, text));
  return make("table", {role: "table", className: "scores"},
    make("thead", {role: "rowgroup"}, make("tr", {role: "row"}, ...heads)), body);
}

/** What each operating point gave where it was chosen; null where the models do not say. */
function points(row, verdicts) {
  const lines = verdicts.flatMap(own => own.points.filter(point => point.sensitivity).map(point => [
    `${capital(own.title)}, ${point.name.replaceAll("_", " ")}${point.threshold === row[own.name + "_threshold"] ? " (in use)" : ""}`,
    `from ${number(point.threshold)}: ${rate("sensitivity", point.sensitivity)}, ${rate("specificity", point.specificity)}`,
  ]));
  return lines.length ? make("details", {}, make("summary", {}, "What the thresholds give"),
    make("p", {className: "hint"}, "On the pictures by which they were chosen, with 95 % intervals."), pairs(lines)) : null;
}

/** Whose eye it is and who says so, such as `right eye (the picture shows it)`. */
function eye(row) {
  const by = {list: "as it was sent", file: "the file says so", picture: "the picture shows it"};
  return row.eye ? `${capital(row.eye)} eye${row.eye_source ? ` (${by[row.eye_source]})` : ""}` : "Eye not known";
}

function pairs(values) {
  return make("dl", {}, ...values.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/**
 * One result as an article.
 * row: as the service gives it.  layers: of the same.  verdicts: see `pointed`.  name: for people.
 * photos: functions that each give the address of the picture, or null; the first that a browser can show is taken.
 */
function show({row, layers, verdicts, name, photos}) {
  const card = make("article", {"aria-label": name}), urls = [];
  const state = row.status === "ok" ? null
    : make("p", {className: "bad"}, `${capital(row.status)}, ${row.code}: ${row.reason}`);
  const text = make("div"), picture = make("div", {}, make("h3", {}, eye(row)), make("p", {className: "hint"}, ...folding(name)), state);
  card.append(make("div", {className: "card"}, picture, text));
  const viewer = new Viewer(name), choice = make("fieldset", {className: "row"}, make("legend", {className: "hint"}, "Layers"));
  viewer.own.hidden = choice.hidden = true;
  picture.append(viewer.own, choice);
  text.append(make("p", {className: "advice"}, advice(row, verdicts)));
  if (row.status === "ok") {
    text.append(table(row, verdicts));
    if (row.vcdr != null) text.append(make("p", {}, `Vertical cup-to-disc ratio ${number(row.vcdr)}`));
  }
  if (row.warnings.length)
    text.append(make("p", {className: "hint"}, `Warnings: ${row.warnings.map(code => WARNINGS[code] ?? code).join("; ")}.`));
  const faults = Object.entries(FAULTS).filter(([key]) => row[key] != null);
  if (faults.length)
    text.append(make("p", {className: "hint"}, `Faults, 0 to 1: ${faults.map(([key, text]) => `${text} ${number(row[key])}`).join(", ")}`));
  if (row.image_quality != null) text.append(make("p", {className: "hint"}, `Quality as a whole, 1 is best: ${number(row.image_quality)}`));
  const models = row.model.map((model, k) =>
    `${model} ${row.model_version[k]} (${row.precision[k]}, ${row.backend[k]}, SHA-256 ${row.model_sha256[k].slice(0, 16)}…)`);
  if (models.length) text.append(make("p", {className: "hint"}, `Computed by ${models.join(" and ")}.`));
  const json = JSON.stringify(row, null, 2), data = URL.createObjectURL(new Blob([json], {type: "application/json"}));
  urls.push(data);
  text.append(
    ...[row.status === "ok" ? points(row, verdicts) : null].filter(Boolean),
    make("details", {}, make("summary", {}, "The row as JSON"), make("pre", {tabIndex: 0, role: "region", "aria-label": "The row as JSON"}, json)),
    make("p", {className: "tools"}, make("a", {className: "button", href: data, download: `${name.split(/[\\/]/).pop()}.json`}, "Download the row")));
  card.forget = () => urls.forEach(URL.revokeObjectURL);
  look();
  return card;

  /** Show the picture, with a box to tick for each layer. */
  async function look() {
    const image = make("img", {alt: `The photograph ${name}`});
    for (const photo of photos) {
      const url = await photo();
      if (!url) continue;
      urls.push(url);
      image.src = url;
      try { await image.decode(); } catch { continue; }
      const width = row.width ?? image.naturalWidth, height = row.height ?? image.naturalHeight;
      const own = drawings(layers, width, height);
      viewer.own.hidden = false;
      viewer.show(width, height, image, ...Object.values(own));
      for (const [layer, element] of Object.entries(own)) choice.append(box(layer, element));
      choice.hidden = !Object.keys(own).length;
      return;
    }
    if (photos.length) viewer.own.replaceWith(make("p", {className: "hint"}, "The picture cannot be shown."));
  }

  function box(layer, element) {
    const input = make("input", {type: "checkbox", checked: SHOWN.includes(layer)});
    const turn = () => element.toggleAttribute("hidden", !input.checked);
    input.addEventListener("change", turn);
    turn();
    const mark = part => make("span", {className: `key ${part}`, "aria-hidden": "true"});
    const title = verdicts.find(own => own.disease === layer)?.disease_title ?? layer;
    const told = layer === "contours" ? [mark("disc"), "disc", ...("cup" in layers.contours ? [mark("cup"), "cup"] : [])]
      : layer === "fovea" ? [mark("fovea"), "fovea"] : [`heat of ${title}`];
    return make("label", {}, input, " ", ...told);
  }
}

at("print").addEventListener("click", () => print());
addEventListener("beforeprint", () => { at("printed").textContent = `Printed ${new Date().toLocaleString()}`; });
