/* radz.js - the page of one film: pixels with window and level, findings as bars, a heat map per finding.
 * Everything comes from the server that sent the page. SPDX-License-Identifier: GPL-3.0-or-later */
'use strict';

const root = '../../';
const id = (new URLSearchParams(location.search).get('instance') || '').replace(/[^0-9a-f-]/g, '');
const at = name => document.getElementById(name);
const state = {film: null, window: null, first: null, invert: false, show: true, chosen: 0, findings: [], maps: {},
  opacity: {}, zoom: 1, x: 0, y: 0};

function element(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

function say(text) {
  at('message').textContent = text;
}

async function getJson(path, options) {
  const answer = await fetch(root + path, options);
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(json.error || json.Message || 'HTTP ' + answer.status), {status: answer.status});
  return json;
}

/* ---- The film's pixels ------------------------------------------------------------------------------------ */

/* A NumPy file as Orthanc writes it: a header in Python's notation, then numbers. */
function readNumpy(buffer) {
  const view = new DataView(buffer);
  const long = view.getUint8(6) > 1, start = long ? 12 : 10;
  const n = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, start, n));
  const type = /'descr': *'[<|=]?([a-z]\d)'/.exec(header)[1];
  const shape = /'shape': *\(([^)]*)\)/.exec(header)[1].split(',').filter(t => t.trim()).map(Number);
  const arrays = {u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
    f4: Float32Array, f8: Float64Array};
  return {shape, values: new arrays[type](buffer.slice(start + n))};
}

async function loadFilm() {
  const tags = await getJson('instances/' + id + '/simplified-tags');
  const answer = await fetch(root + 'instances/' + id + '/numpy?rescale=true');
  if (!answer.ok) throw new Error('the archive cannot decode this film; its transfer syntax may need a plugin');
  const {shape, values} = readNumpy(await answer.arrayBuffer());
  const [frames, height, width, channels] = shape.length === 4 ? shape : [1, ...shape, 1];
  const film = {width, height, channels: channels || 1, values, frames, inverted: tags.PhotometricInterpretation === 'MONOCHROME1'};
  const n = width * height * film.channels;
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < n; i++) { low = Math.min(low, values[i]); high = Math.max(high, values[i]); }
  const first = text => parseFloat(String(text || '').split('\\')[0]);
  const center = first(tags.WindowCenter), size = first(tags.WindowWidth);
  film.range = Math.max(1, high - low);
  state.film = film;
  state.first = film.channels === 1 && size > 0 && isFinite(center) ? [center, size] : [(low + high) / 2, film.range];
}

function drawFilm() {
  const {film} = state, [center, size] = state.window, canvas = at('film');
  canvas.width = film.width, canvas.height = film.height;
  const context = canvas.getContext('2d'), image = context.createImageData(film.width, film.height);
  const low = center - size / 2, gain = 255 / size, dark = film.inverted !== state.invert, c = film.channels;
  for (let i = 0, n = film.width * film.height; i < n; i++) {
    for (let k = 0; k < 3; k++) {
      const v = Math.min(255, Math.max(0, (film.values[i * c + (c === 3 ? k : 0)] - low) * gain));
      image.data[4 * i + k] = dark ? 255 - v : v;
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  at('window').textContent = 'Window ' + Math.round(size) + ', level ' + Math.round(center);
}

function place() {
  const stage = at('stage'), {film} = state;
  if (!film) return;
  const fit = Math.min(stage.clientWidth / film.width, stage.clientHeight / film.height) * state.zoom;
  const x = (stage.clientWidth - film.width * fit) / 2 + state.x, y = (stage.clientHeight - film.height * fit) / 2 + state.y;
  for (const name of ['film', 'map']) {
    const canvas = at(name), scale = fit * film.width / (canvas.width || 1);
    canvas.style.transform = 'translate(' + x + 'px,' + y + 'px) scale(' + scale + ')';
  }
}

/* ---- Heat maps ---------------------------------------------------------------------------------------------- */

const stops = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(v) {
  const t = v / 255 * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(t));
  return stops[i].map((a, k) => a + (t - i) * (stops[i + 1][k] - a));
}

async function loadMap(label) {
  if (state.maps[label]) return state.maps[label];
  const answer = await fetch(root + 'instances/' + id + '/radz/heatmap?label=' + encodeURIComponent(label));
  if (!answer.ok) return null;
  const picture = await createImageBitmap(await answer.blob());
  const canvas = element('canvas', {width: picture.width, height: picture.height}), context = canvas.getContext('2d');
  context.drawImage(picture, 0, 0);
  return state.maps[label] = context.getImageData(0, 0, picture.width, picture.height);
}

async function drawMap() {
  const canvas = at('map'), finding = state.findings[state.chosen];
  const map = finding && state.show ? await loadMap(finding.label) : null;
  if (finding !== state.findings[state.chosen]) return; /* another one was chosen meanwhile */
  at('scale').hidden = !map;
  canvas.hidden = !map;
  if (!map) return;
  canvas.width = map.width, canvas.height = map.height;
  const context = canvas.getContext('2d'), image = context.createImageData(map.width, map.height);
  const opacity = state.opacity[finding.label];
  for (let i = 0; i < map.data.length; i += 4) {
    const v = map.data[i];
    image.data.set(colour(v), i);
    image.data[i + 3] = 255 * opacity * v / 255;
  }
  context.putImageData(image, 0, 0);
  place();
}

/* ---- Findings ------------------------------------------------------------------------------------------------ */

function percent(v) {
  return (100 * v).toFixed(1) + ' %';
}

function showFinding(f, i) {
  const known = state.classes[f.label] || {threshold: .5, description: ''}, over = f.probability >= known.threshold;
  const slider = element('input', {type: 'range', min: 0, max: 100, value: 100 * state.opacity[f.label],
    'aria-label': 'Heat map of ' + f.label});
  slider.addEventListener('input', () => { state.opacity[f.label] = slider.value / 100; state.show = true; update(); });
  const fill = element('div', {class: 'fill'}), mark = element('div', {class: 'mark', title: 'threshold ' + known.threshold});
  fill.style.width = 100 * f.probability + '%';
  mark.style.left = 100 * known.threshold + '%';
  const more = element('div', {class: 'more'}, element('p', {}, known.description),
    element('p', {}, f.similarity === null ? '' : 'Cosine with the description: ' + f.similarity.toFixed(4)),
    element('label', {}, 'Heat map', slider));
  const item = element('li', {class: 'finding' + (over && !known.reference ? ' over' : ''), role: 'option', tabindex: 0,
    'data-label': f.label, 'data-probability': f.probability},
    element('div', {class: 'head'}, element('span', {}, f.label), element('span', {class: 'value'}, percent(f.probability))),
    element('div', {class: 'track'}, fill, mark), more);
  item.addEventListener('click', () => choose(i));
  item.addEventListener('focus', () => choose(i));
  return item;
}

function choose(i) {
  if (i < 0 || i >= state.findings.length) return;
  state.chosen = i;
  [...at('findings').children].forEach((item, k) => item.setAttribute('aria-selected', k === i));
  update();
}

function showProvenance(result) {
  const list = at('provenance'), p = result.provenance || {};
  list.replaceChildren();
  for (const [key, value] of Object.entries(p)) {
    if (value === null) continue;
    list.append(element('dt', {}, key), element('dd', {}, typeof value === 'object' ? JSON.stringify(value) : String(value)));
  }
  at('warnings').replaceChildren(...(result.warnings || []).map(w => element('li', {}, w)));
}

function showResult(document_) {
  const result = document_.result || {};
  if (result.error) throw new Error(result.error.message);
  state.findings = result.scores || [];
  state.findings.forEach(f => { state.opacity[f.label] ??= .5; });
  at('findings').setAttribute('role', 'listbox');
  at('findings').replaceChildren(...state.findings.map(showFinding));
  showProvenance(result);
  at('classify').hidden = document_.current;
  const first = state.findings.findIndex(f => !(state.classes[f.label] || {}).reference);
  choose(Math.max(0, first));
}

async function loadResult() {
  const status = await getJson('radz/status');
  state.classes = Object.fromEntries(status.classes.map(c => [c.label, c]));
  at('notice').textContent = 'AI result, research use only, not for diagnosis';
  try {
    showResult(await getJson('instances/' + id + '/radz/result'));
  } catch (e) {
    if (e.status !== 404) throw e;
    at('classify').hidden = false;
    say('This film has not been classified yet');
    return false;
  }
  return true;
}

async function classify() {
  at('classify').disabled = true;
  const job = await getJson('instances/' + id + '/radz/classify', {method: 'POST', body: '{}'});
  for (;;) {
    const now = await getJson('jobs/' + job.ID);
    say('Classifying: ' + now.Progress + ' %');
    if (now.State === 'Success' || now.State === 'Failure') break;
    await new Promise(done => setTimeout(done, 300));
  }
  at('classify').disabled = false;
  say('');
  await loadResult();
}

/* ---- Mouse, keys ------------------------------------------------------------------------------------------------ */

let pending = false;
function update() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(async () => {
    pending = false;
    at('invert').setAttribute('aria-pressed', state.invert);
    at('toggle').setAttribute('aria-pressed', state.show);
    if (state.film) drawFilm();
    await drawMap().catch(() => {});
    place();
  });
}

function reset() {
  Object.assign(state, {window: state.first, invert: false, zoom: 1, x: 0, y: 0});
  update();
}

function drag(event) {
  if (!event.buttons || !state.film) return;
  if (event.buttons & 2 || event.shiftKey) {
    state.x += event.movementX, state.y += event.movementY;
    return place();
  }
  const step = state.film.range / 600, [center, size] = state.window;
  state.window = [center - event.movementY * step, Math.max(1, size + event.movementX * step)];
  update();
}

function nudge(by) {
  const finding = state.findings[state.chosen];
  if (!finding) return;
  state.opacity[finding.label] = Math.min(1, Math.max(0, state.opacity[finding.label] + by));
  const slider = at('findings').children[state.chosen].querySelector('input');
  slider.value = 100 * state.opacity[finding.label];
  update();
}

function press(event) {
  const slider = event.target.tagName === 'INPUT';
  const keys = {ArrowDown: () => choose(state.chosen + 1), ArrowUp: () => choose(state.chosen - 1),
    ArrowLeft: slider ? null : () => nudge(-.1), ArrowRight: slider ? null : () => nudge(.1), r: reset, R: reset,
    i: () => { state.invert = !state.invert; update(); }, h: () => { state.show = !state.show; update(); }};
  const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key] || keys[event.key.toLowerCase()];
  if (!act) return;
  act();
  event.preventDefault();
}

function listen() {
  const stage = at('stage');
  stage.addEventListener('pointerdown', e => stage.setPointerCapture(e.pointerId));
  stage.addEventListener('pointermove', drag);
  stage.addEventListener('contextmenu', e => e.preventDefault());
  stage.addEventListener('dblclick', reset);
  stage.addEventListener('wheel', e => {
    state.zoom = Math.min(20, Math.max(.5, state.zoom * Math.exp(-e.deltaY / 500)));
    place();
    e.preventDefault();
  }, {passive: false});
  at('invert').addEventListener('click', () => { state.invert = !state.invert; update(); });
  at('toggle').addEventListener('click', () => { state.show = !state.show; update(); });
  at('reset').addEventListener('click', reset);
  at('classify').addEventListener('click', () => classify().catch(e => say(e.message)));
  document.addEventListener('keydown', press);
  window.addEventListener('resize', place);
}

async function start() {
  if (!id) return say('The address names no film: ?instance=');
  at('back').href = root + 'app/explorer.html#instance?uuid=' + id;
  listen();
  const parts = await Promise.allSettled([loadFilm(), loadResult()]);
  state.window = state.first;
  const wrong = parts.filter(p => p.status === 'rejected').map(p => p.reason.message);
  if (wrong.length) say(wrong.join('; '));
  else if (parts[1].value) say('');
  update();
  document.body.dataset.ready = 'true';
}

start();
