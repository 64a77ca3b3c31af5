// The page: one object at a time; a decision is a key. The next object is shown once the server has said that the
// decision is on the disk.

import { get, post, Refused, untilAnswered } from "./api.js";
import { Editor } from "./editor.js";
import { askLogin, askReviewer, chooseClass, makeFilters, showKeys } from "./dialogs.js";
import { WholeImage } from "./image.js";
import { actionOf, keyOf, normal } from "./keys.js";
import { $, node, number, say, saved, showActions, showClasses, others, ownLatest, showObject, showProgress, showSaid } from "./panel.js";
import { drawObject } from "./picture.js";
import { isGone, Queue, withPicture } from "./queue.js";

const BUTTONS = ["accept", "reject", "skip", "previous", "next", "undo", "redo", "edit", "image"];
const LOOK_EVERY = 10000; // milliseconds: what others decided

const page = {
  project: null, reviewer: "", classes: [], queue: null, position: 0, shown: null, url: null,
  inQueue: true, now: null, busy: false, whole: null,
};
window.page = page; // for tests and the console

const stored = (name) => { try { return JSON.parse(sessionStorage.getItem(name)); } catch { return null; } };
const store = (name, value) => sessionStorage.setItem(name, JSON.stringify(value));

async function start() {
  try {
    page.project = await untilAnswered(() => get("project"), lost);
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return askLogin(start);
    say(error.message);
    return setTimeout(start, 3000);
  }
  say(null);
  $("project").textContent = page.project.name;
  page.classes = page.project.classes.map((one) => one.name);
  page.reviewer = stored("reviewer") ?? page.project.reviewer;
  showReviewer();
  const kept = stored("filters");
  const filters = kept && kept.order in page.project.orders ? kept : { order: Object.keys(page.project.orders)[0] };
  makeFilters(page.project, filters, page.reviewer, (found) => act(() => begin(found)));
  await act(() => begin(filters, stored("at")));
  notices();
  setInterval(look, LOOK_EVERY);
}

function showReviewer() {
  $("show-reviewer").textContent = page.reviewer;
}

function lost(is) {
  page.lost = is;
  say(is ? "No connection to the server. What you did last may not be saved; it is sent again as soon as the server is back." : null);
}

// Runs an action alone: keys that are pressed meanwhile do nothing.
async function act(action) {
  if (page.busy) return;
  page.busy = true;
  document.body.dataset.busy = "yes";
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) askLogin(() => location.reload());
    else say(error.message);
  } finally {
    page.busy = false;
    document.body.dataset.busy = "";
  }
}

const ask = (request) => untilAnswered(request, lost);

// A request about the queue. Where the server doesn't have it any more the queue is made anew, which is then shown from
// the present object on, or from the worst one; undefined.
async function askQueue(request) {
  try {
    return await ask(request);
  } catch (error) {
    if (!isGone(error)) throw error;
    await begin(page.queue.filters, page.shown?.id);
    return undefined;
  }
}

async function begin(filters, at) {
  store("filters", filters);
  page.queue?.clear();
  page.queue = new Queue(filters);
  const position = await ask(() => page.queue.make(at ?? undefined));
  await refreshNow();
  await go(position);
}

async function refreshNow() {
  page.now = await ask(() => get(`now?reviewer=${encodeURIComponent(page.reviewer)}`));
}

// Shows the object at a position.
async function go(position) {
  if (!page.queue.total) return showEmpty();
  let found;
  try {
    found = await askQueue(() => page.queue.at(position));
  } catch (error) {
    Object.assign(page, { position, inQueue: true }); // an image that can't be read holds nothing up
    throw error;
  }
  if (!found) return undefined;
  page.position = found.object.position;
  page.inQueue = true;
  show(found);
  return fetchAhead();
}

// In the background: an error shows when the object is needed.
function fetchAhead() {
  const { queue, position } = page;
  queue.undecided(position + 1).then((next) => {
    if (next === null || next === position) return;
    page.next = { queue: queue.name, after: position, position: next };
    queue.at(next).then(({ object }) => { if (page.edited) encodeAhead(object); }).catch(() => {});
  }).catch(() => {});
}

function show({ object, url }) {
  Object.assign(page, { shown: object, url });
  store("at", object.id);
  $("empty").hidden = true;
  $("picture").hidden = false;
  drawObject($("picture"), object, url);
  showObject(object);
  showClasses(page.classes, object.decided_category ?? object.category, (name) => run({ name }));
  showSaid(object, page.reviewer, { withdraw: (one) => act(() => withdraw(one)), agree: (name) => act(() => agree(name)) });
  showProgress(page.now, page.inQueue ? page.position : null, page.queue.total);
  buttons();
}

function buttons() {
  showActions(BUTTONS.filter((name) => name !== "redo" || page.now?.redo), run, (name) => (name === "accept" && !page.shown?.mask) || (name === "undo" && !page.now?.last) ||
    (!page.shown && ["accept", "reject", "skip", "previous", "next", "edit", "image"].includes(name)));
}

function showEmpty() {
  page.shown = null;
  $("picture").hidden = true;
  $("empty").hidden = false;
  $("empty").textContent = page.now?.decided ? "Nothing is left here. Other filters may have more; the next run honours what you decided." : "No object is like that. Try other filters.";
  for (const name of ["about", "classes", "said"]) $(name).replaceChildren();
  showProgress(page.now, 0, 0);
  buttons();
}

// Saves a decision; the promise is kept once it is on the disk.
async function decide(action, fields) {
  return sent(await ask(() => post("decisions", { reviewer: page.reviewer, action, ...fields })), 1);
}

function sent(made, count) {
  if (made.now.version !== page.now.version + count) { // others decided meanwhile, maybe on what was fetched ahead
    page.queue.clear();
    page.next = null;
  }
  page.now = made.now;
  say(null);
  return made;
}

const on = (object) => ({ image: object.image.name, object: object.id });

async function verdict(action) {
  const object = page.shown;
  if (!object || (action === "accept" && !object.mask)) return;
  await decide(action, action === "accept" ? { ...on(object), mask: object.mask } : on(object));
  saved(`saved: ${action}`);
  page.queue.forget(page.position);
  await onward();
}

// To the next undecided object.
async function onward() {
  const from = page.inQueue ? page.position + 1 : page.position;
  const ahead = page.next;
  page.next = null;
  if (ahead?.queue === page.queue.name && ahead.after === from - 1 && ahead.position >= from) return go(ahead.position);
  const next = await askQueue(() => page.queue.undecided(from));
  if (next === undefined) return undefined;
  return next === null ? finish() : go(next);
}

// All of this queue is decided: others may have undone something, or a run may have ended.
async function finish() {
  const { filters, total } = page.queue;
  await begin(filters);
  if (page.queue.total && filters.decided !== "no") say(`All ${number(total)} objects of this queue are decided.`, true);
}

async function setClass(name) {
  const object = page.shown;
  if (!object) return;
  await decide("class", { ...on(object), category: name });
  saved(`saved: ${name}`);
  await again();
}

// The shown object as it is now.
async function again() {
  const found = await ask(() => get(`objects/${page.shown.id}`));
  const isSame = String(found.window) === String(page.shown.window); // a run may have drawn another mask
  const { url } = isSame ? page : await ask(() => withPicture(found));
  page.queue.forget(page.position);
  show({ object: { ...page.shown, ...found }, url });
}

async function undo() {
  const last = await undoLast();
  if (last?.object) await goTo(last.object);
  else if (last && page.shown) await again();
}

async function undoLast() {
  const { last } = page.now;
  if (!last) return null;
  await decide("undo", { undoes: last.id });
  saved(`undone: ${last.what}`);
  page.queue.clear();
  page.next = null;
  return last;
}

async function redo() {
  const found = await redoLast();
  if (found?.object) await goTo(found.object);
  else if (found && page.shown) await again();
}

// An undo is undone.
async function redoLast() {
  const found = page.now.redo;
  if (!found) return null;
  await decide("undo", { undoes: found.undo });
  saved(`done again: ${found.what}`);
  page.queue.clear();
  page.next = null;
  return found;
}

// Undoes one of one's own decisions on the shown object.
async function withdraw(one) {
  const mine = one ?? (page.shown && ownLatest(page.shown, page.reviewer));
  if (!mine) return undefined;
  await decide("undo", { undoes: mine.id });
  saved(`taken back: ${mine.what}`);
  page.queue.clear();
  page.next = null;
  return mine.action === "add" ? onward() : again();
}

// Decides on the shown object as another reviewer did.
async function agree(name) {
  const other = name ?? (page.shown && others(page.shown, page.reviewer)[0]);
  if (!other) return undefined;
  const made = await ask(() => post("agree", { reviewer: page.reviewer, object: page.shown.id, other }));
  sent(made, made.made.length);
  saved(`saved: as ${other}`);
  page.queue.forget(page.position);
  return onward();
}

// Shows an object by its id, in the queue or not.
async function goTo(id) {
  const place = await askQueue(() => page.queue.placeOf(id));
  if (place === undefined) return undefined;
  if (place !== null) return go(place);
  try {
    const found = await ask(async () => withPicture(await get(`objects/${id}`)));
    page.inQueue = false;
    return show(found);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error; // one whose addition is undone
  }
  return undefined;
}

async function openImage() {
  if (!page.shown) return;
  const whole = new WholeImage(page, { run, decide, ask, undo: undoLast, redo: redoLast, back: closeImage, openObject: (id) => act(() => { closeImage(); return goTo(id); }) });
  await whole.open(page.shown.image.id);
  page.whole = whole;
}

function closeImage() {
  page.whole?.close();
  page.whole = null;
  if (page.shown) act(again);
  else showEmpty();
}

const encodeAhead = (object) => post("draw/ahead", { image: object.image.id, object: object.id }).catch(() => {});

const editor = new Editor($("editor"), {
  ask,
  save: (action, fields) => act(async () => {
    const { object } = editor;
    await decide(action, { ...on(object), ...fields });
    closeEditor();
    saved(`saved: ${action}`);
    page.queue.forget(page.position);
    await onward();
  }),
  back: closeEditor,
});
page.editor = editor;

async function openEditor() {
  if (!page.shown) return;
  page.edited = true;
  document.body.dataset.editing = "yes";
  await editor.open(page.shown);
}

function closeEditor() {
  editor.close();
  document.body.dataset.editing = "";
  redraw();
}

function toggleFilters() {
  const form = $("filters");
  form.hidden = !form.hidden;
  $("show-filters").setAttribute("aria-expanded", String(!form.hidden));
  redraw();
}

function redraw() {
  if (page.whole) page.whole.draw();
  else if (page.shown && page.url) drawObject($("picture"), page.shown, page.url);
}

// Runs an action, or sets a class: {class: n} or {name}.
function run(action) {
  if (action === undefined || $("dialog").open || editor.isOpen) return;
  if (action === "filters") return toggleFilters();
  if (page.whole) return act(() => page.whole.run(action));
  const name = typeof action === "object" ? action.name ?? page.classes[action.class] : null;
  const does = {
    accept: () => verdict("accept"), reject: () => verdict("reject"), skip: onward, undo, redo, withdraw: () => withdraw(), agree: () => agree(), edit: openEditor,
    previous: () => go(Math.max(0, page.inQueue ? page.position - 1 : page.position)),
    next: () => go(Math.min(page.queue.total - 1, page.inQueue ? page.position + 1 : page.position)),
    image: openImage, class: () => chooseClass(page.classes, (chosen) => act(() => setClass(chosen))),
  };
  if (name) act(() => setClass(name));
  else if (does[action]) act(does[action]);
}

async function look() {
  if (page.busy || document.hidden || !page.now || editor.isOpen) return;
  try {
    const now = await get(`now?reviewer=${encodeURIComponent(page.reviewer)}`);
    const changed = now.version !== page.now.version;
    page.now = now;
    if (page.lost) lost(false);
    if (page.busy || !changed) return;
    page.queue.clear();
    if (page.whole) await act(() => page.whole.reload());
    else if (page.shown) await act(again);
    notices();
  } catch (error) {
    if (!(error instanceof Refused)) lost(true);
    else if (error.status !== 401) say(error.message);
  }
}

async function notices() {
  const found = await get("notices").catch(() => []);
  $("notices").hidden = !found.length;
  $("notices").querySelector("summary").textContent = `${number(found.length)} ${found.length === 1 ? "decision has" : "decisions have"} no effect`;
  $("notices").querySelector("ul").replaceChildren(...found.slice(0, 200).map((one) => node("li", {}, `${one.text}${one.step ? `; ${one.step}` : ""} `,
    one.undoes && one.reviewer === page.reviewer ? node("button", { type: "button", onclick: () => act(async () => { await decide("undo", { undoes: one.undoes }); await notices(); }) }, "undo") : "")));
}

addEventListener("keydown", (event) => {
  if (editor.isOpen || $("dialog").open || event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur?.();
    return;
  }
  if (event.key === "Escape" && page.whole) return closeImage();
  const action = actionOf(event, page.classes);
  if (action === undefined) return;
  event.preventDefault();
  if (action === "bare") $("picture").classList.add("bare");
  else if (!event.repeat || action === "next" || action === "previous") run(action);
});
addEventListener("keyup", (event) => { if (normal(event) === keyOf("bare")) $("picture").classList.remove("bare"); });
addEventListener("blur", () => $("picture").classList.remove("bare"));
addEventListener("resize", redraw);
$("show-filters").onclick = (event) => { event.currentTarget.blur(); toggleFilters(); };
$("show-keys").onclick = () => showKeys(page.classes, () => { if (page.shown) show({ object: page.shown, url: page.url }); });
$("show-reviewer").onclick = () => askReviewer(page.reviewer, (name) => {
  page.reviewer = name;
  store("reviewer", name);
  showReviewer();
  act(async () => { await refreshNow(); if (page.shown) await again(); });
});
start();
