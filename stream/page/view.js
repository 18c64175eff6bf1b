// The live page. One WebSocket; a frame is asked for when the one before is drawn or about to be, so a slow page gets
// fewer frames, and never more than one waits.
// The format of a frame is told in stream/view.py.
"use strict";

const $ = (id) => document.getElementById(id);
const MOST_POINTS = 200000;
const ARRAYS = { u1: Uint8Array, i1: Int8Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
// Okabe and Ito's colours for classes, and the same lighter for a dark ground; lines carry their number as well, so
// colour alone tells nothing
const LIGHT = ["#0072b2", "#b87f00", "#007a57", "#b05a88", "#2a8fc7", "#d55e00", "#7a7600", "#6a5dc4", "#8f4a28", "#5b6b76"];
const DARK = ["#4aa3dc", "#e69f00", "#2fc498", "#d98bb8", "#8fd0f5", "#ff8a3c", "#d6cf4a", "#a79cf0", "#d08a62", "#a3b1bb"];
let CLASSES = LIGHT;

const state = {
  run: null, before: null, tUs: 0, surface: null, surfaceName: "", surfaces: [],
  spikes: new Map(), answers: new Map(), scores: [], scoreTimes: [], corrections: new Float64Array(0),
  looks: {}, coresBefore: null, frames: 0, surfaceEvents: 0, eventTimes: [], dirty: true,
};
// for tests, and for the curious in the console
window.hebbstream = { state, frames: 0, surfaceSum: 0, connected: false };

// ---- what comes in -----------------------------------------------------------------------------------------------

let socket = null;
let retryMs = 250;

function connect() {
  if (state.holding) hold(false);
  const url = new URL("socket" + location.search, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { retryMs = 250; window.hebbstream.connected = true; askNext(); };
  // the next frame travels while this one is drawn; a frame that comes before that waits, and asks for none
  let isDrawing = false, isOwed = false;
  socket.onmessage = (message) => {
    take(message.data);
    if (isDrawing) { isOwed = true; return; }
    isDrawing = true;
    askNext();
    requestAnimationFrame(() => {
      isDrawing = false;
      draw();
      if (isOwed) { isOwed = false; askNext(); }
    });
  };
  socket.onclose = () => {
    window.hebbstream.connected = false;
    words("phase", "connecting", "bad");
    setTimeout(connect, retryMs);
    retryMs = Math.min(2000, retryMs * 1.6);
  };
}

function send(wish) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
}
const askNext = () => send({ next: true, surface: state.surfaceName });

function take(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const it of head.arrays) {
    const size = it.shape.reduce((product, n) => product * n, 1);
    arrays[it.name] = { data: new ARRAYS[it.dtype](buffer, 4 + length + it.at, size), shape: it.shape };
  }
  if (head.run) takeRun(head.run);
  if (head.t_us < state.tUs) forget();
  state.tUs = head.t_us;
  state.surfaces = head.surfaces;
  if (head.surface && head.surface !== state.surfaceName) { state.surfaceName = head.surface; view.scale = 1; view.x = view.y = 0; }
  if (arrays.surface) { state.surface = arrays.surface; state.surfaceEvents = head.events; }
  for (const [name, array] of Object.entries(arrays)) {
    const [kind, address, field] = name.split(" ");
    if (kind === "spikes" && field === "t") keep(state.spikes, address, { t: array.data, unit: arrays[`spikes ${address} unit`].data }, MOST_POINTS);
    if (kind === "answers" && field === "t") {
      const get = (it) => arrays[`answers ${address} ${it}`].data;
      keep(state.answers, address, { t: array.data, label: get("label"), answer: get("answer"), teach: get("teach") }, 20000);
    }
    if (kind === "look") {
      const [, member, what, key] = name.split(" ");
      ((state.looks[member] ??= {})[what] ??= {})[key] = array;
      if (key === "scores" && what === "state") takeScores(member, array.data, head.looks_us[`${member} state`]);
      if (key === "corrections_us") state.corrections = array.data;
    }
  }
  state.frames += 1;
  window.hebbstream.frames = state.frames;
  state.fault = head.fault;
  if (head.saved && head.saved.join() !== (state.saved ?? []).join()) { state.saved = head.saved; state.dirty = true; }
}

function keep(place, address, columns, most) {
  let kept = place.get(address);
  if (!kept) place.set(address, (kept = { n: 0 }));
  const n = columns.t.length;
  for (const [name, column] of Object.entries(columns)) {
    // a doubling buffer that is halved when full: adding is cheap and memory has a limit
    let buffer = kept[name] ?? new Float64Array(1024);
    let from = kept.n;
    if (from + n > buffer.length) {
      const left = Math.min(kept.n, Math.floor(most / 2));
      const grown = new Float64Array(Math.min(most, Math.max(1024, 2 * (left + n))));
      grown.set(buffer.subarray(kept.n - left, kept.n));
      buffer = grown;
      from = left;
    }
    const room = buffer.length - from;
    buffer.set(n > room ? column.subarray(n - room) : column, from);
    kept[name] = buffer;
    kept.next = from + Math.min(n, room);
  }
  kept.n = kept.next;
}

function takeScores(member, values, tUs) {
  if (state.scoreMember === undefined || !state.looks[state.scoreMember]?.weights) {
    if (state.scoreMember !== member && state.looks[member]?.state?.corrections_us) { state.scoreMember = member; state.scores = []; state.scoreTimes = []; }
    state.scoreMember ??= member;
  }
  if (member !== state.scoreMember || state.scoreTimes.at(-1) === tUs) return;
  if (state.scores.length && state.scores[0].length !== values.length) { state.scores = []; state.scoreTimes = []; }
  state.scores.push(Float32Array.from(values));
  state.scoreTimes.push(tUs);
  if (state.scores.length > 1200) { state.scores.splice(0, 400); state.scoreTimes.splice(0, 400); }
}

function forget() {
  state.spikes.clear(); state.answers.clear(); state.looks = {}; state.scores = []; state.scoreTimes = [];
  state.fieldsFirst = undefined; state.isTaught = false;
  state.corrections = new Float64Array(0); state.scoreMember = undefined; state.coresBefore = null; state.surface = null;
}

function takeRun(run) {
  if (state.run && state.run.pid !== run.pid) { forget(); state.before = null; state.tUs = 0; }
  else if (state.run && state.run.time_s !== run.time_s) state.before = state.run;
  state.run = run;
  state.dirty = true;
}

// ---- drawing -----------------------------------------------------------------------------------------------------

const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["panel", "ink", "quiet", "line", "stage", "on", "off", "right", "wrong", "tick"]) colours[name] = style.getPropertyValue(`--${name}`).trim();
  CLASSES = document.documentElement.dataset.theme === "dark" ? DARK : LIGHT;
  palette();
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const lut = new Uint32Array(256);
function palette() {
  // fade: after 2^fade ms a pixel is back to the ground's colour; the last change stays faintly visible before that
  const fadeMs = 2 ** Number($("fade").value);
  const ground = rgb(colours.stage);
  lut.fill((255 << 24) | (ground[2] << 16) | (ground[1] << 8) | ground[0]);
  for (const [polarity, colour] of [[0, rgb(colours.off)], [1, rgb(colours.on)]]) {
    for (let age = 0; age <= 126; age++) {
      const ms = 2 ** (age / 8) - 1;
      const strength = Math.max(0, 1 - ms / fadeMs) ** 0.8;
      const [r, g, b] = colour.map((c, k) => Math.round(ground[k] + (c - ground[k]) * strength));
      lut[128 * polarity + 127 - age] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
  }
  $("fade-words").textContent = fadeMs < 1000 ? `${fadeMs.toFixed(0)} ms` : `${(fadeMs / 1000).toFixed(1)} s`;
}

function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  return [context, canvas.clientWidth, canvas.clientHeight];
}

const view = { scale: 1, x: 0, y: 0 };
const raw = document.createElement("canvas");
const rawContext = raw.getContext("2d");
let image = null, pixels = null;  // used again for each frame
function drawSurface() {
  const surface = state.surface;
  const canvas = $("surface");
  if (!surface) {
    fitted(canvas);
    const phase = !window.hebbstream.connected ? "connecting" : state.run?.phase;
    $("waiting").hidden = false;
    $("waiting").textContent = phase === "compiling" ? "compiling kernels: the first run takes about a minute, later ones a second"
      : phase === "running" ? "no events yet" : phase === "gone" ? "the run has ended" : phase ?? "waiting for a run";
    return;
  }
  const [height, width] = surface.shape;
  if (!image || raw.width !== width || raw.height !== height) {
    raw.width = width; raw.height = height;
    image = rawContext.createImageData(width, height);
    pixels = new Uint32Array(image.data.buffer);
    canvas.style.aspectRatio = `${width} / ${height}`;
  }
  const data = surface.data;
  let sum = 0;
  for (let k = 0; k < data.length; k++) { const value = data[k]; pixels[k] = lut[value]; sum += value; }
  window.hebbstream.surfaceSum = sum;
  rawContext.putImageData(image, 0, 0);
  $("waiting").hidden = true;
  const [out, w, h] = fitted(canvas);
  out.imageSmoothingEnabled = w / width < 1;
  const factor = (w / width) * view.scale;
  view.x = Math.min(0, Math.max(w - width * factor, view.x));
  view.y = Math.min(0, Math.max(h - height * factor, view.y));
  out.drawImage(raw, view.x, view.y, width * factor, height * factor);
}

function zoom(by, atX, atY) {
  const before = view.scale;
  view.scale = Math.min(32, Math.max(1, view.scale * by));
  const by2 = view.scale / before;
  view.x = atX - (atX - view.x) * by2;
  view.y = atY - (atY - view.y) * by2;
  draw();
}

function axes(context, x, y, w, h, ticks) {
  context.strokeStyle = colours.line;
  context.fillStyle = colours.quiet;
  context.lineWidth = 1;
  context.textAlign = "right";
  for (const [value, text] of ticks) {
    const at = Math.round(y + h - value * h) + 0.5;
    context.beginPath(); context.moveTo(x, at); context.lineTo(x + w, at); context.stroke();
    context.fillText(text, x - 5, at);
  }
}

function empty(context, w, h, text) {
  context.fillStyle = colours.quiet;
  context.textAlign = "center";
  context.fillText(text, w / 2, h / 2);
}

const spanUs = () => 1e6 * 2 ** Number($("span").value);
const minutes = (s) => `${Math.floor(s / 60)} min ${s % 60} s`;
const seconds = (us) => (us < 1e6 ? `${Math.round(us / 1e3)} ms` : us < 5.95e7 ? `${(us / 1e6).toFixed(us < 1e7 ? 1 : 0)} s` : minutes(Math.round(us / 1e6)));

function timeAxis(context, x, w, h, spanUs) {
  context.fillStyle = colours.quiet;
  context.textAlign = "left"; context.fillText(`−${seconds(spanUs)}`, x, h - 7);
  context.textAlign = "right"; context.fillText("now", x + w, h - 7);
}

function drawRaster() {
  const [context, w, h] = fitted($("raster"));
  const select = $("raster-of");
  options(select, inOrder([...state.spikes.keys()]));
  $("span-words").textContent = seconds(spanUs());
  const spikes = state.spikes.get(select.value);
  const x = 34, bottom = 18, plotW = w - x - 4, plotH = h - bottom - 4;
  if (!spikes) return empty(context, w, h, "no spikes come from this pipeline yet");
  const from = state.tUs - spanUs();
  let first = spikes.n;
  let most = spikes.units ?? 1;
  while (first > 0 && spikes.t[first - 1] >= from) { first--; if (spikes.unit[first] >= most) most = spikes.unit[first] + 1; }
  spikes.units = most;
  axes(context, x, 4, plotW, plotH, [[0, "0"], [1 - 4 / plotH, String(most)]]);
  context.fillStyle = colours.ink;
  const size = Math.max(1, Math.min(3, plotH / most));
  const step = Math.max(1, Math.floor((spikes.n - first) / 40000));  // beyond that they are a grey block in any case
  for (let k = first; k < spikes.n; k += step) {
    context.fillRect(x + ((spikes.t[k] - from) / spanUs()) * plotW, 4 + plotH - ((spikes.unit[k] + 1) / most) * plotH, size * 0.9, size);
  }
  timeAxis(context, x, plotW, h, spanUs());
  const rate = ((spikes.n - first) / spanUs()) * 1e6;
  $("raster-rate").textContent = `${si(rate)} spikes/s`;
}

function drawScores() {
  const [context, w, h] = fitted($("scores"));
  const scores = state.scores, times = state.scoreTimes;
  if (!scores.length) return empty(context, w, h, "no member tells scores");
  const x = 34, right = 44, plotW = w - x - right, plotH = h - 22;
  // at a fast pace samples lie far apart in stream time: some of them are shown in any case
  const now = Math.max(state.tUs, times.at(-1));
  const span = Math.max(spanUs(), 1e6, times.length > 1 ? now - times[Math.max(0, times.length - 16)] : 0), from = now - span;
  let first = times.length - 1;
  while (first > 0 && times[first - 1] >= from) first--;
  let low = 0, high = 1e-6;
  for (let k = first; k < scores.length; k++) for (const value of scores[k]) { if (value < low) low = value; if (value > high) high = value; }
  const place = (value) => 4 + plotH - ((value - low) / (high - low)) * plotH;
  axes(context, x, 4, plotW, plotH, [[(0 - low) / (high - low), "0"], [1 - 4 / plotH, String(Number(high.toPrecision(2)))]]);
  const n = scores[0].length, last = scores.at(-1);
  const best = last.indexOf(Math.max(...last));
  const labels = [];
  for (let unit = 0; unit < n; unit++) {
    context.strokeStyle = CLASSES[unit % CLASSES.length];
    context.lineWidth = unit === best ? 2.6 : 1.1;
    context.beginPath();
    for (let k = first; k < scores.length; k++) context.lineTo(x + Math.max(0, (times[k] - from) / span) * plotW, place(scores[k][unit]));
    context.stroke();
    labels.push([place(last[unit]), unit]);
  }
  labels.sort((a, b) => a[0] - b[0]);
  const least = Math.min(12, (h - 14) / n);
  for (let k = 1; k < labels.length; k++) labels[k][0] = Math.max(labels[k][0], labels[k - 1][0] + least);
  for (let k = labels.length - 1, limit = h - 8; k >= 0; k--, limit -= least) labels[k][0] = Math.min(labels[k][0], limit);
  context.textAlign = "left";
  for (const [y, unit] of labels) {
    context.fillStyle = unit === best ? colours.ink : CLASSES[unit % CLASSES.length];
    context.font = `${unit === best ? "bold " : ""}11px system-ui, 'DejaVu Sans', sans-serif`;
    context.fillText(className(unit).slice(0, 8), x + plotW + 6, y, right - 8);
  }
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  timeAxis(context, x, plotW, h, span);
}

const className = (unit) => (unit < 0 ? "–" : (state.names?.[unit] ?? String(unit)));

function drawAnswers() {
  const [address, ...others] = inOrder([...state.answers.keys()]);
  const answers = state.answers.get(address);
  const output = $("answer");
  $("answer-of").textContent = address ?? "";
  drawOthers(others);
  if (!answers || !answers.n) { output.textContent = "–"; output.className = ""; $("truth").textContent = ""; return; }
  const k = answers.n - 1;
  output.textContent = className(answers.answer[k]);
  const isKnown = answers.label[k] >= 0;
  const isRight = answers.answer[k] === answers.label[k];
  output.className = !isKnown ? "" : isRight ? "right" : "wrong";
  $("truth").textContent = isKnown ? `shown: ${className(answers.label[k])}: ${isRight ? "right ✓" : "wrong ✗"}${answers.teach[k] ? ", taught" : ""}` : "";
}

// what the other members say of the same stream, beside each other
function drawOthers(addresses) {
  const place = $("others");
  place.hidden = !addresses.length;
  while (place.children.length > addresses.length) place.lastChild.remove();
  addresses.forEach((address, index) => {
    if (!place.children[index]) { const made = document.createElement("div"); made.append(document.createElement("output"), document.createElement("span")); place.append(made); }
    const [output, words] = place.children[index].children;
    const it = state.answers.get(address), k = it.n - 1;
    const isKnown = k >= 0 && it.label[k] >= 0, isRight = isKnown && it.answer[k] === it.label[k];
    output.textContent = k < 0 ? "–" : className(it.answer[k]);
    output.className = !isKnown ? "" : isRight ? "right" : "wrong";
    words.textContent = `${address.split(".")[0]}${!isKnown ? "" : isRight ? " ✓" : " ✗"}`;
  });
}

const LINES = [[], [5, 3], [2, 3], [8, 3, 2, 3]];
function drawAccuracy() {
  const [context, w, h] = fitted($("accuracy"));
  const x = 38, plotW = w - x - 8, plotH = h - 34;
  if (!state.answers.size) return empty(context, w, h, "no answers yet");
  axes(context, x, 6, plotW, plotH, [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]]);
  const all = inOrder([...state.answers.keys()]).map((address) => [address, state.answers.get(address)]);
  const from = Math.min(...all.map(([, it]) => it.t[0])), to = Math.max(state.tUs, from + 1);
  const place = (t) => x + ((t - from) / (to - from)) * plotW;
  // spans that were not taught stand on a darker ground
  const [, one] = all[0];
  context.fillStyle = colours.stage;
  for (let k = 0; k < one.n; k++) if (!one.teach[k]) { const left = place(k ? one.t[k - 1] : from); context.fillRect(left, 6, place(one.t[k]) - left + 0.5, plotH); }
  axes(context, x, 6, plotW, plotH, [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]]);
  const notes = [];
  all.forEach(([address, it], index) => {
    context.strokeStyle = CLASSES[(index * 5) % CLASSES.length];
    context.setLineDash(LINES[index % 4]);
    context.lineWidth = 2;
    context.beginPath();
    const known = [];  // answers whose truth is known
    for (let k = 0; k < it.n; k++) if (it.label[k] >= 0) known.push(k);
    let right = 0, shown = 0;
    known.forEach((k, n) => {
      right += it.answer[k] === it.label[k];
      const old = known[n - 50];
      if (n >= 50) right -= it.answer[old] === it.label[old];
      shown = right / Math.min(n + 1, 50);
      const isGap = n && it.t[k] - it.t[known[n - 1]] > 0.1 * (to - from);  // nobody looked meanwhile
      if (n >= 5) context[isGap ? "moveTo" : "lineTo"](place(it.t[k]), 6 + plotH - shown * plotH);
    });
    context.stroke();
    if (known.length) notes.push(`${address.split(".")[0]} ${(100 * shown).toFixed(0)} %`);
  });
  context.setLineDash([]);
  context.strokeStyle = colours.tick;
  context.lineWidth = 1;
  context.beginPath();
  for (const t of state.corrections) if (t >= from) { const at = place(t); context.moveTo(at, plotH + 8); context.lineTo(at, plotH + 16); }
  context.stroke();
  context.fillStyle = colours.quiet;
  context.textAlign = "left"; context.fillText(seconds(from), x, h - 7);
  context.textAlign = "right"; context.fillText(seconds(to), x + plotW, h - 7);
  $("accuracy-lines").replaceChildren(...all.map(([address], index) => {
    const it = document.createElement("span"), line = document.createElement("i");
    it.className = "legend"; line.className = "line";
    line.style.borderTopColor = CLASSES[(index * 5) % CLASSES.length];
    line.style.borderTopStyle = index % 4 === 0 ? "solid" : index % 4 === 2 ? "dotted" : "dashed";
    it.append(line, address.split(".")[0] + " ");
    return it;
  }));
  $("accuracy-note").textContent = notes.length ? `last 50: ${notes.join(", ")}` : "";
  $("accuracy-words").textContent = notes.length ? `of the last 50 answers right: ${notes[0].split(" ").slice(-2).join(" ")}` : "";
}

function drawFields() {
  const found = Object.values(state.looks).find((it) => it.weights?.fields)?.weights;
  $("fields-panel").hidden = !found;
  if (!found || !state.fieldsNew(found)) return;
  $("fields-of").querySelector('[value="hebb"]').disabled = !found.hebb;
  const wanted = $("fields-of").value;
  if (state.fieldsFirst?.data.length !== found.fields.data.length) state.fieldsFirst = found.fields;
  const array = wanted === "change" ? { shape: found.fields.shape, data: found.fields.data.map((value, k) => value - state.fieldsFirst.data[k]) } : found[wanted] ?? found.fields;
  const [n, height, width] = array.shape;
  const canvas = $("fields");
  const columns = canvas.clientWidth < 420 ? 4 : 6, rows = Math.ceil(n / columns);
  const tileW = canvas.clientWidth / columns, tileH = ((tileW - 6) / 2 / width) * height + 6;
  canvas.style.height = `${Math.round(rows * tileH)}px`;
  const [context] = fitted(canvas);
  context.imageSmoothingEnabled = false;
  const ground = rgb(colours.panel), above = rgb(colours.on), below = rgb(colours.off);
  const small = new ImageData(2 * width + 1, height);
  const tile = document.createElement("canvas");
  tile.width = 2 * width + 1; tile.height = height;
  let largest = 1e-9;
  const sorted = Float32Array.from(array.data, Math.abs).sort();
  largest = Math.max(largest, sorted[Math.floor(0.995 * (sorted.length - 1))]);
  for (let unit = 0; unit < n; unit++) {
    for (let y = 0; y < height; y++) for (let px = 0; px < width; px++) for (let p = 0; p < 2; p++) {
      const value = Math.max(-1, Math.min(1, array.data[((unit * height + y) * width + px) * 2 + p] / largest));
      const colour = value >= 0 ? above : below;
      const at = 4 * (y * (2 * width + 1) + px + (p ? 0 : width + 1));
      for (let k = 0; k < 3; k++) small.data[at + k] = ground[k] + (colour[k] - ground[k]) * Math.abs(value);
      small.data[at + 3] = 255;
    }
    tile.getContext("2d").putImageData(small, 0, 0);
    const left = (unit % columns) * tileW, top = Math.floor(unit / columns) * tileH;
    context.drawImage(tile, left + 2, top + 2, tileW - 6, tileH - 6);
    context.strokeStyle = colours.line;
    context.strokeRect(left + 1.5, top + 1.5, tileW - 5, tileH - 5);
  }
}
state.fieldsNew = (found) => {
  const key = [$("fields-of").value, document.documentElement.dataset.theme, $("fields").clientWidth].join();
  const isNew = state.fieldsShown !== found.fields || state.fieldsKey !== key;
  state.fieldsShown = found.fields; state.fieldsKey = key;
  return isNew;
};

function drawChip() {
  const chip = Object.entries(state.looks).find(([, it]) => it.state?.plane);
  $("chip-panel").hidden = !chip;
  if (!chip) return;
  const [name, { state: it }] = chip;
  const [width, height] = it.plane.data;
  // activity is what was added since a moment ago, smoothed, so that it can be seen
  const before = state.coresBefore;
  const changed = !before || before.ops !== it.core_ops;
  if (changed) {
    const rate = (now, then, smooth) => Float64Array.from(now, (value, k) => Math.max(0, value - (then?.[k] ?? value)) * 0.5 + (smooth?.[k] ?? 0) * 0.5);
    const same = before && before.ops.data.length === it.core_ops.data.length && before.links.data.length === it.link_total.data.length;
    state.coresBefore = {
      ops: it.core_ops, links: it.link_total,
      core: rate(it.core_ops.data, same && before.ops.data, same && before.core),
      link: rate(it.link_total.data, same && before.links.data, same && before.link),
    };
  }
  const { core, link } = state.coresBefore;
  const canvas = $("chip");
  let right = 1, bottom = 1;
  for (let k = 0; k < it.cores.shape[0]; k++) { right = Math.max(right, it.cores.data[3 * k] + 1); bottom = Math.max(bottom, it.cores.data[3 * k + 1] + 1); }
  right = Math.min(width, right + 1); bottom = Math.min(height, bottom + 1);
  const pitch = Math.min(64, (canvas.clientWidth - 30) / right);
  canvas.style.height = `${Math.round(pitch * bottom + 34)}px`;
  const [context, w] = fitted(canvas);
  const left = (w - pitch * right) / 2 + 8, top = 22, side = pitch * 0.62;
  const middle = (x, y) => [left + (x + 0.5) * pitch, top + (y + 0.5) * pitch];
  const mostCore = Math.max(1, ...core), mostLink = Math.max(1, ...link);
  for (let k = 0; k < it.links.shape[0]; k++) {
    const [x0, y0, x1, y1] = it.links.data.subarray(4 * k, 4 * k + 4);
    let [ax, ay] = x0 < 0 ? [left - 14, top + 0.5 * pitch] : middle(x0, y0);
    let [bx, by] = x1 < 0 ? [left - 14, top + 0.5 * pitch] : middle(x1, y1);
    // the two directions of a pair of cores lie side by side
    const length = Math.hypot(bx - ax, by - ay) || 1, off = pitch * 0.09;
    const nx = (-(by - ay) / length) * off, ny = ((bx - ax) / length) * off;
    const load = link[k] / mostLink;
    context.strokeStyle = load ? colours.off : colours.line;
    context.globalAlpha = load ? 0.25 + 0.75 * load : 0.8;
    context.lineWidth = 1 + 4 * Math.sqrt(load);
    context.beginPath(); context.moveTo(ax + nx, ay + ny); context.lineTo(bx + nx, by + ny); context.stroke();
  }
  context.globalAlpha = 1;
  const used = new Map();
  for (let k = 0; k < it.cores.shape[0]; k++) used.set(it.cores.data[3 * k] + width * it.cores.data[3 * k + 1], k);
  context.textAlign = "center";
  for (let y = 0; y < bottom; y++) for (let x = 0; x < right; x++) {
    const [cx, cy] = middle(x, y);
    const k = used.get(x + width * y);
    context.fillStyle = colours.panel;
    context.fillRect(cx - side / 2, cy - side / 2, side, side);
    if (k !== undefined) {
      context.globalAlpha = 0.12 + 0.88 * Math.sqrt(core[k] / mostCore);
      context.fillStyle = colours.on;
      context.fillRect(cx - side / 2, cy - side / 2, side, side);
      context.globalAlpha = 1;
    }
    context.strokeStyle = k === undefined ? colours.line : colours.quiet;
    context.lineWidth = 1;
    context.strokeRect(cx - side / 2, cy - side / 2, side, side);
    if (k !== undefined && side > 16) { context.fillStyle = colours.ink; context.fillText(String(it.cores.data[3 * k + 2]), cx, cy); }
  }
  context.fillStyle = colours.quiet; context.textAlign = "left"; context.fillText("host", 2, 10);
  $("chip-note").textContent = `${name}: ${used.size} of ${width * height} cores; number: layer, blue: additions, orange: packets on a link`;
  const counts = state.run?.members?.[name];
  if (counts) $("chip-counts").textContent = ["deploys", "phases", "spikes in", "spikes out", "packets", "hops", "synaptic ops"].filter((key) => counts[key]).map((key) => `${key} ${si(counts[key])}`).join(" · ");
}

function si(value) {
  for (const [factor, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (Math.abs(value) >= factor) return `${Number((value / factor).toPrecision(3))} ${letter}`;
  return String(Number(value.toPrecision(3)));
}
const duration = (us) => (us === undefined ? "–" : us >= 1e6 ? `${(us / 1e6).toPrecision(3)} s` : us >= 1000 ? `${(us / 1000).toPrecision(3)} ms` : `${us.toFixed(0)} µs`);

function drawGraph() {
  const run = state.run;
  if (!run?.graph) return;
  const members = run.graph.members, edges = run.graph.edges;
  const depth = Object.fromEntries(members.map((it) => [it.name, 0]));
  for (let round = 0; round < members.length; round++) for (const edge of edges) {
    const [from, to] = [edge.from.split(".")[0], edge.to.split(".")[0]];
    depth[to] = Math.max(depth[to], depth[from] + 1);
  }
  const columns = [];
  for (const it of members) (columns[depth[it.name]] ??= []).push(it);
  const tallest = Math.max(...columns.map((it) => it.length));
  const canvas = $("graph");
  const reach = edges.some((edge) => depth[edge.to.split(".")[0]] - depth[edge.from.split(".")[0]] > 1) ? 56 : 16;
  canvas.style.height = `${tallest * 62 + reach}px`;
  canvas.style.minWidth = `${columns.length * 190}px`;
  const [context, w, h] = fitted(canvas);
  const gap = w / columns.length, boxW = Math.min(190, gap * 0.62), boxH = 42;
  const at = {};
  columns.forEach((column, x) => column.forEach((it, y) => { at[it.name] = [gap * (x + 0.5), ((y + 0.5) * h) / column.length]; }));
  const rates = edgeRates();
  // edges between the same two members are drawn as one, with the sum of what they carry
  const joined = new Map();
  for (const edge of edges) {
    const key = `${edge.from.split(".")[0]} ${edge.to.split(".")[0]}`;
    const kept = joined.get(key) ?? { rate: 0, live: false, dropped: 0 };
    kept.rate += rates.get(`${edge.from} -> ${edge.to}`)?.rate ?? 0;
    kept.dropped += rates.get(`${edge.from} -> ${edge.to}`)?.dropped ?? 0;
    kept.live ||= edge.delivery === "live";
    joined.set(key, kept);
  }
  const far = ([key]) => { const [from, to] = key.split(" ").map((name) => at[name]); return to[0] - from[0] > gap * 1.5; };
  for (const [key, { rate, live, dropped }] of [...joined].sort((a, b) => far(b) - far(a))) {
    const isFar = far([key]);
    const [from, to] = key.split(" ").map((name) => at[name]);
    const x0 = from[0] + boxW / 2, x1 = to[0] - boxW / 2, bend = (x1 - x0) / 2;
    context.strokeStyle = dropped ? colours.off : colours.quiet;
    context.lineWidth = 1 + Math.min(4, Math.log10(1 + rate) / 1.6);
    context.setLineDash(live ? [5, 3] : []);
    context.beginPath(); context.moveTo(x0, from[1]); 
    if (isFar) { const low = Math.max(from[1], to[1]) + boxH + 14; context.bezierCurveTo(x0 + gap * 0.4, low, x1 - gap * 0.4, low, x1, to[1]); }
    else context.bezierCurveTo(x0 + bend, from[1], x1 - bend, to[1], x1, to[1]);
    context.stroke();
    context.setLineDash([]);
    if (!isFar) {
      const text = `${si(rate)}/s`;
      const half = context.measureText(text).width / 2 + 3, mx = (x0 + x1) / 2, my = (from[1] + to[1]) / 2;
      context.fillStyle = colours.panel; context.fillRect(mx - half, my - 8, 2 * half, 16);
      context.fillStyle = colours.quiet; context.textAlign = "center"; context.fillText(text, mx, my);
    }
  }
  for (const it of members) {
    const [x, y] = at[it.name];
    context.fillStyle = colours.stage;
    context.strokeStyle = colours.quiet;
    context.lineWidth = 1;
    context.beginPath(); context.roundRect(x - boxW / 2, y - boxH / 2, boxW, boxH, 7); context.fill(); context.stroke();
    context.textAlign = "center";
    context.fillStyle = colours.ink; context.font = "bold 12px system-ui, 'DejaVu Sans', sans-serif"; context.fillText(it.name, x, y - 8, boxW - 8);
    context.fillStyle = colours.quiet; context.font = "11px system-ui, 'DejaVu Sans', sans-serif"; context.fillText(it.kind.split(".").pop(), x, y + 9, boxW - 8);
  }
}

function edgeRates() {
  const rates = new Map();
  const span = state.before ? state.run.time_s - state.before.time_s : 0;
  const old = new Map((state.before?.edges ?? []).map((row) => [row.edge, row]));
  for (const row of state.run.edges) {
    const before = old.get(row.edge)?.delivered;
    rates.set(row.edge, { rate: span > 0 && before !== undefined ? Math.max(0, (row.delivered - before) / span) : 0, dropped: row.dropped ?? 0 });
  }
  return rates;
}

function rows(body, wanted) {
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((cells, k) => {
    const row = body.rows[k] ?? body.insertRow();
    cells.forEach((cell, j) => {
      const place = row.cells[j] ?? row.insertCell();
      const text = String(cell?.text ?? cell);
      if (place.textContent !== text) place.textContent = text;
      place.className = cell?.kind ?? "";
    });
  });
}

function drawRun() {
  const run = state.run;
  if (!run) {
    words("phase", window.hebbstream.connected ? "waiting for a run" : "connecting", "");
    return;
  }
  $("name").textContent = run.pipeline;
  document.title = `${run.pipeline} · hebbstream`;
  const sources = Object.values(run.sources ?? {});
  const isPaused = sources.some((it) => it.is_paused);
  const isOver = run.phase === "gone" || (run.nodes.length > 0 && run.nodes.every((it) => it.done));
  words("phase", !window.hebbstream.connected ? "connecting" : isOver ? "ended" : isPaused ? "paused" : run.phase, isOver || isPaused ? "bad" : run.phase === "running" ? "good" : "");
  document.querySelectorAll("nav button, #seek").forEach((it) => { it.disabled = isOver || !run.taps?.folder; });
  $("pause").setAttribute("aria-pressed", String(isPaused));
  $("pause").textContent = isPaused ? "go on" : "pause";
  const playing = sources.filter((it) => !it.has_ended)[0] ?? sources[0];
  if (playing) {
    $("speed").textContent = playing.speed === "max" ? "max" : `${Number(playing.speed.toPrecision(3))} ×`;
    document.querySelectorAll(".seeks").forEach((it) => { it.hidden = !playing.can_seek; });
    $("loop").setAttribute("aria-pressed", String(playing.is_looping));
    $("record").setAttribute("aria-pressed", String(Boolean(playing.recording)));
    $("record").title = playing.recording ? `recording to ${playing.recording}: r stops it` : "record what the source gives: r";
    const seek = $("seek");
    if (!seek.matches(":active")) {
      seek.max = String(Math.max(Number(seek.max), playing.position_us, 1e6));
      seek.value = String(playing.position_us);
      $("position").textContent = seconds(playing.position_us);
    }
  }
  const teacher = sources.find((it) => it.can_teach);
  $("teach").hidden = !teacher || isOver;
  if (teacher) {
    const isShown = teacher.shown >= 0;
    $("teach-hold").setAttribute("aria-pressed", String(isShown));
    const names = Object.keys(run.names ?? {});
    // a readout that is taught has room for classes; only such a one can forget and be corrected by a name
    if (Object.values(run.members).some((it) => it["most classes"] > it.classes)) state.isTaught = true;
    for (const id of ["teach-correct", "teach-forget", "teach-saving"]) $(id).hidden = !state.isTaught;
    $("teach-words").textContent = isShown ? `teaching ${className(teacher.shown)}` : "";
    knownNames(names);
    const typed = $("teach-name").value.trim();
    $("teach-correct").disabled = !typed;
    $("teach-forget").disabled = !names.includes(typed);
    $("teach-save").disabled = !names.length;
    options($("teach-files"), state.saved ?? []);
    $("teach-kept").hidden = !(state.saved ?? []).length;
    $("teach-known").hidden = !names.length && !(state.isTaught && (state.saved ?? []).length);
  }
  state.names = Object.fromEntries(Object.entries(run.names ?? {}).map(([name, unit]) => [unit, name]));
  const rates = edgeRates();
  const number = (value) => (value ?? 0).toLocaleString("en");
  const isTap = (row) => row.edge.endsWith("-> tap");
  rows($("edges").tBodies[0], run.edges.filter((row) => !isTap(row)).map((row) => [
    row.edge.replace("->", "→"), si(rates.get(row.edge).rate), number(row.sent), number(row.delivered),
    { text: number(row.dropped), kind: row.dropped ? "lost" : "" }, si(row.queue), duration(row.p50_us), duration(row.p99_us),
  ]));
  // what a viewer misses is no loss of the pipeline's
  const taps = run.edges.filter(isTap);
  $("viewers").hidden = !taps.length;
  rows($("taps").tBodies[0], taps.map((row) => [
    row.edge.replace(" -> tap", ""), si(rates.get(row.edge).rate), number(row.sent), number(row.delivered), number(row.dropped),
  ]));
  rows($("members").tBodies[0], Object.entries(run.members).map(([name, counts]) => [
    name, Object.entries(counts).filter(([key, value]) => value && !key.startsWith("of ")).map(([key, value]) => `${key} ${si(value)}`).join(", "),
  ]));
  drawGraph();
}

// what was taught, to be chosen by a click
function knownNames(names) {
  const place = $("teach-names");
  if (place.dataset.names === names.join()) return;
  place.dataset.names = names.join();
  place.replaceChildren(...names.map((name) => {
    const button = document.createElement("button");
    button.type = "button"; button.className = "chip"; button.textContent = name; button.title = "choose this name";
    button.addEventListener("click", () => { $("teach-name").value = name; state.dirty = true; });
    return button;
  }));
}

function words(id, text, kind) {
  const place = $(id);
  if (place.textContent !== text) place.textContent = text;
  place.className = `pill ${kind}`;
}

// members in the order of the pipeline's file: what comes first is shown first
function inOrder(addresses) {
  const names = (state.run?.graph?.members ?? []).map((it) => it.name);
  return addresses.sort((a, b) => names.indexOf(a.split(".")[0]) - names.indexOf(b.split(".")[0]) || (a < b ? -1 : 1));
}

function options(select, names) {
  if (select.dataset.names === names.join()) return;
  const before = select.value;
  select.dataset.names = names.join();
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (select.dataset.chosen && names.includes(before)) select.value = before;
}

function draw() {
  const now = performance.now();
  options($("surface-of"), inOrder(state.surfaces));
  $("surface-of").value = state.surfaceName;
  $("clock").textContent = `${(state.tUs / 1e6).toFixed(3)} s`;
  drawSurface();
  state.eventTimes.push([now, state.surfaceEvents, state.frames]);
  while (state.eventTimes.length > 2 && state.eventTimes[0][0] < now - 1000) state.eventTimes.shift();
  const [then, events, frames] = state.eventTimes[0];
  if (now - then > 200) {
    $("surface-rate").textContent = `${si(Math.max(0, ((state.surfaceEvents - events) / (now - then)) * 1000))} events/s`;
    $("fps").textContent = ` · ${(((state.frames - frames) / (now - then)) * 1000).toFixed(0)} frames/s`;
  }
  drawRaster();
  // what people read rather than watch is drawn less often
  if (now - (state.slowMs ?? -1000) > 100) {
    state.slowMs = now;
    const has = (panel, wanted) => { $(panel).hidden = !wanted; };
    has("answer-panel", state.answers.size || state.scores.length);
    has("raster-panel", state.spikes.size);
    has("accuracy-panel", state.answers.size);
    document.querySelector(".panels").dataset.alone = String(!state.answers.size && !state.spikes.size && !state.scores.length);
    drawAnswers();
    drawScores();
    drawAccuracy();
    drawFields();
    drawChip();
    if (state.dirty) { drawRun(); state.dirty = false; }
    const notice = !state.run && state.fault ? state.fault : "";
    $("notice").hidden = !notice;
    $("notice").textContent = notice;
  }
}

// ---- hands -------------------------------------------------------------------------------------------------------

document.querySelectorAll("[data-key]").forEach((button) => {
  button.addEventListener("click", () => { send({ key: button.dataset.key }); button.blur(); });
});
$("seek").addEventListener("input", () => { $("position").textContent = seconds(Number($("seek").value)); });
$("seek").addEventListener("change", () => send({ seek_us: Math.round(Number($("seek").value)) }));
document.querySelectorAll("select").forEach((it) => it.addEventListener("change", () => { it.dataset.chosen = "yes"; }));
$("surface-of").addEventListener("change", () => { state.surfaceName = $("surface-of").value; state.eventTimes = []; });
$("fade").addEventListener("input", () => { palette(); draw(); });
$("fields-of").addEventListener("change", draw);
$("zoom-in").addEventListener("click", () => zoom(1.5, $("surface").clientWidth / 2, $("surface").clientHeight / 2));
$("zoom-out").addEventListener("click", () => zoom(1 / 1.5, $("surface").clientWidth / 2, $("surface").clientHeight / 2));
$("zoom-all").addEventListener("click", () => zoom(0, 0, 0));
$("surface").addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY); }, { passive: false });
$("surface").addEventListener("pointerdown", (event) => { $("surface").setPointerCapture(event.pointerId); });
$("surface").addEventListener("pointermove", (event) => { if (event.buttons) { view.x += event.movementX; view.y += event.movementY; draw(); } });

function hold(on) {
  const name = $("teach-name").value.trim();
  if (on === Boolean(state.holding) || (on && !name)) return;
  state.holding = on;
  send({ show: on ? name : "" });
}
$("teach").addEventListener("submit", (event) => { event.preventDefault(); $("teach-name").blur(); });
$("teach-hold").addEventListener("pointerdown", (event) => { event.target.setPointerCapture(event.pointerId); hold(true); });
for (const end of ["pointerup", "pointercancel"]) $("teach-hold").addEventListener(end, () => hold(false));
const typedName = () => $("teach-name").value.trim();
$("teach-name").addEventListener("input", () => { state.dirty = true; });
$("teach-correct").addEventListener("click", () => { if (typedName()) send({ correct: typedName() }); });
$("teach-forget").addEventListener("click", () => send({ forget: typedName() }));
$("teach-save").addEventListener("click", () => send({ save: true }));
$("teach-load").addEventListener("click", () => send({ load: $("teach-files").value }));
addEventListener("blur", () => hold(false));
document.addEventListener("keyup", (event) => { if (event.key === "h") hold(false); });

const KEYS = { ArrowRight: ">", ArrowLeft: "<" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], select")) return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  if (event.key === "h") return hold(true);
  if (event.key === "t") return theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  const key = KEYS[event.key] ?? event.key;
  if (key.length === 1 && " .+-m<>0lr".includes(key)) {
    event.preventDefault();
    send({ key });
  }
});

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "light" : "dark";
  readColours();
  state.dirty = true;
  state.slowMs = -1000;
  draw();
}
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
prefersDark.addEventListener("change", () => theme(prefersDark.matches ? "dark" : "light"));
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
addEventListener("resize", () => { state.dirty = true; state.slowMs = -1000; draw(); });

theme(prefersDark.matches ? "dark" : "light");
connect();
