/* radz.js - the page of one film: pixels with window and level, findings as bars, a heat map per finding.
 * Everything comes from the server that sent the page. SPDX-License-Identifier: GPL-3.0-or-later */
'use strict';

const root = '../../';
const id = (new URLSearchParams(location.search).get('instance') || '').replace(/[^0-9a-f-]/g, '');
const at = name => document.getElementById(name);
const state = {film: null, window: null, first: null, invert: false, show: false, hidden: false, chosen: -1,
  findings: [], classes: {}, maps: {}, opacity: {}, zoom: 1, x: 0, y: 0, job: null};

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

/* Gray values as places in a table of at most 65536 shades, so that a new window costs one look per pixel. */
function indexGray(values, n) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < n; i++) { low = Math.min(low, values[i]); high = Math.max(high, values[i]); }
  const step = Math.max(1, (high - low) / 65535), index = new Uint16Array(n);
  for (let i = 0; i < n; i++) index[i] = Math.round((values[i] - low) / step);
  return {low, step, index, levels: Math.round((high - low) / step) + 1};
}

/* Without a window of its own: from the darkest to the brightest half percent. */
function guessWindow(film) {
  const count = new Uint32Array(film.levels), n = film.index.length;
  film.index.forEach(i => count[i]++);
  const find = share => { let i = 0, sum = 0; while (i < film.levels - 1 && (sum += count[i]) <= share * n) i++; return i; };
  const low = find(.005), high = Math.max(low + 1, find(.995));
  return [film.low + film.step * (low + high) / 2, film.step * (high - low)];
}

function showPatient(tags) {
  const date = t => (t || '').replace(/^(\d{4})(\d\d)(\d\d)$/, '$1-$2-$3');
  const name = (tags.PatientName || '').replace(/=.*/, '').replace(/\^+/g, ' ').trim();
  const parts = [tags.PatientID && 'ID ' + tags.PatientID, tags.PatientBirthDate && 'born ' + date(tags.PatientBirthDate),
    tags.PatientSex, tags.StudyDate && 'film of ' + date(tags.StudyDate), tags.StudyDescription,
    [tags.Modality, tags.ViewPosition, tags.BodyPartExamined].filter(Boolean).join(' ')].filter(Boolean);
  at('who').replaceChildren(element('b', {}, name || 'No name'), parts.map(p => ' · ' + p).join(''));
}

async function loadFilm() {
  const tags = await getJson('instances/' + id + '/simplified-tags');
  showPatient(tags);
  const answer = await fetch(root + 'instances/' + id + '/numpy?rescale=true');
  if (!answer.ok) throw new Error('the archive cannot decode this film; its transfer syntax may need a plugin');
  const {shape, values} = readNumpy(await answer.arrayBuffer());
  const [, height, width, channels] = shape.length === 4 ? shape : [1, ...shape, 1];
  const film = {width, height, channels: channels || 1, inverted: tags.PhotometricInterpretation === 'MONOCHROME1'};
  if (film.channels === 1) Object.assign(film, indexGray(values, width * height));
  else film.rgb = values;
  const first = text => parseFloat(String(text || '').split('\\')[0]);
  const center = first(tags.WindowCenter), size = first(tags.WindowWidth);
  film.range = film.rgb ? 255 : Math.max(1, film.step * (film.levels - 1));
  state.film = film;
  state.first = film.rgb ? [127.5, 256] : size >= 1 && isFinite(center) ? [center, size] : guessWindow(film);
  state.window = state.first;
}

function shade(value, invert) {
  const [center, size] = state.window;
  const v = 255 * ((value - (center - .5)) / Math.max(1e-6, size - 1) + .5), gray = Math.min(255, Math.max(0, v));
  return Math.round(invert ? 255 - gray : gray);
}

function drawFilm() {
  const {film} = state, canvas = at('film'), n = film.width * film.height;
  if (canvas.width !== film.width || canvas.height !== film.height) canvas.width = film.width, canvas.height = film.height;
  const context = canvas.getContext('2d');
  film.picture = film.picture || context.createImageData(film.width, film.height);
  const pixels = new Uint32Array(film.picture.data.buffer), invert = film.inverted !== state.invert;
  const table = Uint32Array.from({length: film.rgb ? 256 : film.levels}, (_, i) => {
    const g = shade(film.rgb ? i : film.low + film.step * i, invert);
    return film.rgb ? g : 0xff000000 | g << 16 | g << 8 | g;
  });
  if (film.rgb) for (let i = 0, c = film.channels; i < n; i++)
    pixels[i] = 0xff000000 | table[film.rgb[i * c + 2]] << 16 | table[film.rgb[i * c + 1]] << 8 | table[film.rgb[i * c]];
  else for (let i = 0; i < n; i++) pixels[i] = table[film.index[i]];
  context.putImageData(film.picture, 0, 0);
  const [center, size] = state.window;
  at('window').textContent = 'Window ' + Math.round(size) + ', level ' + Math.round(center);
}

/* Where the film lies on the stage: scale, and its corner. */
function placing() {
  const stage = at('stage'), {film} = state;
  const fit = Math.min(stage.clientWidth / film.width, stage.clientHeight / film.height) * state.zoom;
  return {fit, x: (stage.clientWidth - film.width * fit) / 2 + state.x, y: (stage.clientHeight - film.height * fit) / 2 + state.y};
}

function place() {
  if (!state.film) return;
  const {fit, x, y} = placing();
  for (const name of ['film', 'map']) {
    const canvas = at(name), scale = fit * state.film.width / (canvas.width || 1);
    canvas.style.transform = 'translate(' + x + 'px,' + y + 'px) scale(' + scale + ')';
  }
}

/* What lies under (x, y) of the stage stays there. */
function zoomAt(x, y, by) {
  if (!state.film) return;
  const before = placing(), zoom = Math.min(20, Math.max(.5, state.zoom * by)), k = zoom / state.zoom;
  state.zoom = zoom;
  const after = placing();
  state.x += x - (x - before.x) * k - after.x, state.y += y - (y - before.y) * k - after.y;
  place();
}

/* ---- Heat maps ---------------------------------------------------------------------------------------------- */

const stops = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(v) {
  const t = v / 255 * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(t));
  return stops[i].map((a, k) => a + (t - i) * (stops[i + 1][k] - a));
}

async function fetchMap(label) {
  const answer = await fetch(root + 'instances/' + id + '/radz/heatmap?label=' + encodeURIComponent(label));
  if (!answer.ok) throw new Error('no heat map: ' + ((await answer.json().catch(() => ({}))).error || answer.status));
  const picture = await createImageBitmap(await answer.blob());
  const canvas = element('canvas', {width: picture.width, height: picture.height}), context = canvas.getContext('2d');
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

/* Asked for once, also while it is on its way. */
function loadMap(label) {
  state.maps[label] = state.maps[label] || fetchMap(label).catch(e => { delete state.maps[label]; throw e; });
  return state.maps[label];
}

async function drawMap() {
  const canvas = at('map'), finding = state.show && state.findings[state.chosen];
  let map = null;
  if (finding) {
    const slow = setTimeout(() => { at('busy').textContent = 'Making the heat map'; }, 300);
    map = await loadMap(finding.label).finally(() => clearTimeout(slow));
    if (!state.show || finding !== state.findings[state.chosen]) return; /* another one was chosen meanwhile */
  }
  at('busy').textContent = '';
  at('scale').hidden = canvas.hidden = !map;
  if (!map) return;
  at('scale-label').textContent = finding.label;
  canvas.width = map.width, canvas.height = map.height;
  const context = canvas.getContext('2d'), image = context.createImageData(map.width, map.height);
  for (let i = 0; i < map.data.length; i += 4) {
    image.data.set(colour(map.data[i]), i);
    image.data[i + 3] = state.opacity[finding.label] * map.data[i];
  }
  context.putImageData(image, 0, 0);
}

/* ---- Findings ------------------------------------------------------------------------------------------------ */

function percent(v) {
  return v > 0 && v < .01 ? '<1 %' : v < 1 && v > .99 ? '>99 %' : Math.round(100 * v) + ' %';
}

/* With a decimal where the threshold is as many percent: 49.7 is not over 50. */
function scoreText(f) {
  const near = !f.reference && percent(f.probability) === percent(f.threshold);
  return near ? (100 * f.probability).toFixed(1) + ' %' : percent(f.probability);
}

function describe(f) {
  const more = [element('p', {}, f.description)];
  if (f.similarity !== null) more.push(element('p', {}, 'Cosine with this description: ' + f.similarity.toFixed(4)));
  if (!f.reference)
    more.push(element('p', {}, (f.over ? 'At or over' : 'Below') + ' its threshold of ' + percent(f.threshold)));
  const slider = element('input', {type: 'range', min: 0, max: 100, value: 100 * state.opacity[f.label],
    'aria-label': 'Heat map of ' + f.label});
  slider.addEventListener('input', () => {
    state.opacity[f.label] = slider.value / 100;
    setShown(true);
  });
  more.push(element('label', {}, 'Heat map', slider));
  return element('div', {class: 'more'}, ...more);
}

function showFinding(f, i) {
  const fill = element('span', {class: 'fill'}), track = element('span', {class: 'track'}, fill);
  fill.style.width = 100 * f.probability + '%';
  if (!f.reference) {
    const mark = element('span', {class: 'mark', title: 'threshold ' + percent(f.threshold)});
    mark.style.left = 'calc(' + 100 * f.threshold + '% - 1px)';
    track.append(mark);
  }
  const button = element('button', {type: 'button', 'aria-expanded': 'false'},
    element('span', {class: 'head'}, element('span', {}, f.label), element('span', {class: 'value'}, scoreText(f))), track);
  button.addEventListener('click', () => pick(i));
  return element('li', {class: 'finding' + (f.over ? ' over' : '') + (f.reference ? ' reference' : ''),
    'data-label': f.label, 'data-probability': f.probability}, button, describe(f));
}

function setShown(show) {
  state.show = show, state.hidden = !show;
  update();
}

function choose(i) {
  state.chosen = i;
  [...at('findings').children].forEach((item, k) => {
    item.classList.toggle('chosen', k === i);
    item.firstChild.setAttribute('aria-expanded', k === i);
  });
  update();
}

/* Somebody wants to see this one: its heat map too, unless they are hidden on purpose. */
function pick(i) {
  if (i < 0 || i >= state.findings.length) return;
  state.show = !state.hidden;
  choose(i);
  at('findings').children[i].scrollIntoView({block: 'nearest'});
}

function flatten(value, name, list) {
  if (value === null || value === undefined) return;
  if (typeof value === 'object' && !Array.isArray(value))
    for (const [key, inner] of Object.entries(value)) flatten(inner, name ? name + ' ' + key : key, list);
  else
    list.append(element('dt', {}, name.replace(/_/g, ' ')), element('dd', {}, Array.isArray(value) ? value.join(', ') : String(value)));
}

function showArchive(outputs) {
  const links = [], link = (text, o) => links.push(links.length ? ' · ' : ' ', element('a', {href: root + 'app/explorer.html#instance?uuid=' + o.instance}, text));
  for (const o of outputs.SR || []) link('report', o);
  for (const o of outputs.SC || []) link('heat map of ' + o.label, o);
  for (const o of outputs.GSPS || []) link('outline of ' + o.label, o);
  at('archive').replaceChildren('In the archive:', ...links);
  at('archive').hidden = !links.length;
}

function showSummary() {
  const over = state.findings.filter(f => f.over).length;
  at('summary').textContent = over === 0 ? 'No finding reaches its threshold' :
    over === 1 ? '1 finding at or over its threshold' : over + ' findings at or over their thresholds';
}

function showResult(document_) {
  const result = document_.result || {}, thresholds = document_.thresholds || {}, outputs = document_.outputs || {};
  at('provenance').replaceChildren();
  flatten(result.provenance, '', at('provenance'));
  at('classify').hidden = document_.current && !result.error;
  at('classify').textContent = 'Classify again';
  if (result.error) throw new Error('This film could not be classified: ' + result.error.message);
  state.maps = {};
  state.findings = (result.scores || []).map(f => {
    const known = state.classes[f.label] || {}, threshold = thresholds[f.label] ?? known.threshold ?? .5;
    state.opacity[f.label] ??= .5;
    return {...f, threshold, reference: !!known.reference, description: known.description || '',
      over: !known.reference && f.probability >= threshold};
  });
  const warnings = [...(result.warnings || [])];
  if (!document_.current) warnings.unshift('of another model or configuration than the server has now: no heat maps');
  if (outputs.error) warnings.push('not all reports are in the archive: ' + outputs.error);
  at('warnings').replaceChildren(...warnings.map(w => element('li', {}, w)));
  at('findings').replaceChildren(...state.findings.map(showFinding));
  showSummary();
  showArchive(outputs);
  const over = state.findings.findIndex(f => f.over);
  state.show = document_.current && over >= 0 && !state.hidden;
  choose(over >= 0 ? over : state.findings.findIndex(f => !f.reference));
}

async function loadResult() {
  const status = await getJson('radz/status');
  state.classes = Object.fromEntries(status.classes.map(c => [c.label, c]));
  try {
    showResult(await getJson('instances/' + id + '/radz/result'));
    say('');
  } catch (e) {
    if (e.status !== 404) throw e;
    at('classify').hidden = false;
    say('This film has not been classified yet');
  }
}

async function classify() {
  at('classify').disabled = true;
  at('stop').hidden = false;
  try {
    state.job = (await getJson('instances/' + id + '/radz/classify', {method: 'POST', body: '{}'})).ID;
    let now;
    do {
      await new Promise(done => setTimeout(done, 300));
      now = await getJson('jobs/' + state.job).catch(e => {
        if (e.status === 404) return {State: 'Success'}; /* Orthanc forgets old jobs soon */
        throw e;
      });
      if (now.Progress !== undefined) say('Classifying: ' + now.Progress + ' %');
    } while (now.State !== 'Success' && now.State !== 'Failure');
    const error = now.State === 'Failure' && ((now.Content || {}).Error || 'stopped');
    say('');
    if (error) say('Not classified: ' + error);
    else await loadResult();
  } finally {
    at('classify').disabled = false;
    at('stop').hidden = true;
  }
}

/* ---- Mouse, fingers, keys --------------------------------------------------------------------------------------- */

let pending = false;
function update() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(async () => {
    pending = false;
    at('invert').setAttribute('aria-pressed', state.invert);
    at('toggle').setAttribute('aria-pressed', state.show);
    if (state.film) drawFilm();
    place();
    await drawMap().catch(e => { at('busy').textContent = e.message; at('map').hidden = at('scale').hidden = true; });
    place();
  });
}

function reset() {
  Object.assign(state, {window: state.first, invert: false, zoom: 1, x: 0, y: 0});
  update();
}

const fingers = new Map();

function pinch(event) {
  const old = [...fingers.values()], box = at('stage').getBoundingClientRect();
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  const now = [...fingers.values()], middle = p => [(p[0][0] + p[1][0]) / 2, (p[0][1] + p[1][1]) / 2];
  const length = p => Math.hypot(p[0][0] - p[1][0], p[0][1] - p[1][1]) || 1, [x, y] = middle(now), [x0, y0] = middle(old);
  state.x += x - x0, state.y += y - y0;
  zoomAt(x - box.left, y - box.top, length(now) / length(old));
}

function drag(event) {
  if (!fingers.has(event.pointerId) || !state.film) return;
  if (fingers.size === 2) return pinch(event);
  const [x, y] = fingers.get(event.pointerId), dx = event.clientX - x, dy = event.clientY - y;
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (event.buttons & 2 || event.shiftKey) {
    state.x += dx, state.y += dy;
    return place();
  }
  const step = state.film.range / 600, [center, size] = state.window;
  state.window = [center - dy * step, Math.max(1, size + dx * step)];
  update();
}

function nudge(by) {
  const finding = state.findings[state.chosen];
  if (!finding) return;
  state.opacity[finding.label] = Math.min(1, Math.max(0, state.opacity[finding.label] + by));
  at('findings').children[state.chosen].querySelector('input').value = 100 * state.opacity[finding.label];
  setShown(true);
}

function zoomMiddle(by) {
  zoomAt(at('stage').clientWidth / 2, at('stage').clientHeight / 2, by);
}

const keys = {ArrowDown: () => pick(state.chosen + 1), ArrowUp: () => pick(state.chosen - 1), ArrowLeft: () => nudge(-.1),
  ArrowRight: () => nudge(.1), r: reset, i: () => { state.invert = !state.invert; update(); },
  h: () => setShown(!state.show), '+': () => zoomMiddle(1.25), '=': () => zoomMiddle(1.25), '-': () => zoomMiddle(.8)};

function press(event) {
  const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key] || keys[event.key.toLowerCase()];
  if (!act || (event.target.tagName === 'INPUT' && /^Arrow(Left|Right)/.test(event.key))) return;
  act();
  event.preventDefault();
}

function listen() {
  const stage = at('stage'), gone = e => fingers.delete(e.pointerId);
  stage.addEventListener('pointerdown', e => {
    stage.setPointerCapture(e.pointerId);
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
  });
  stage.addEventListener('pointermove', drag);
  for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) stage.addEventListener(end, gone);
  stage.addEventListener('contextmenu', e => e.preventDefault());
  stage.addEventListener('dblclick', reset);
  stage.addEventListener('wheel', e => {
    const box = stage.getBoundingClientRect();
    zoomAt(e.clientX - box.left, e.clientY - box.top, Math.exp(-e.deltaY / 500));
    e.preventDefault();
  }, {passive: false});
  at('invert').addEventListener('click', keys.i);
  at('toggle').addEventListener('click', keys.h);
  at('reset').addEventListener('click', reset);
  at('classify').addEventListener('click', () => classify().catch(e => say(e.message)));
  at('stop').addEventListener('click', () => getJson('jobs/' + state.job + '/cancel', {method: 'POST', body: '{}'}).catch(e => say(e.message)));
  document.addEventListener('keydown', press);
  window.addEventListener('resize', place);
}

async function start() {
  if (!id) return say('The address names no film: ?instance=');
  at('back').href = root + 'app/explorer.html#instance?uuid=' + id;
  listen();
  const parts = await Promise.allSettled([loadFilm(), loadResult()]);
  const wrong = parts.filter(p => p.status === 'rejected').map(p => p.reason.message);
  if (wrong.length) say(wrong.join('; '));
  update();
  document.body.dataset.ready = 'true';
}

start();
