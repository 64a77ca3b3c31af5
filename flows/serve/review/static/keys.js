// The keys of actions: one hand on the left of the keyboard. A person's own ones are kept in the browser.

export const ACTIONS = {
  accept: ["F", "accept"],
  reject: ["D", "reject"],
  skip: ["S", "skip", "on to the next undecided object"],
  undo: ["Z", "undo", "your last decision"],
  redo: ["Y", "redo", "what you undid last"],
  withdraw: ["X", "take back", "your latest decision on this object"],
  agree: ["T", "agree", "decide as another reviewer did on this object"],
  previous: ["A", "previous"],
  next: ["G", "next", "on by one place"],
  edit: ["E", "edit", "move the click, add clicks, draw"],
  bare: [" ", "hide", "the image alone, while the key is down"],
  image: ["W", "whole image", "its objects; add one, mark the image as complete"],
  add: ["N", "add", "in the whole image: each click adds an object"],
  complete: ["C", "complete", "in the whole image: all its objects are clicked or added"],
  class: ["R", "class…", "choose a class by its name"],
  filters: ["Q", "filters"],
};
const CLASS_KEYS = "1234567890";
const STORED = "review-keys";

let own = {};
try {
  own = JSON.parse(localStorage.getItem(STORED) ?? "{}");
} catch { /* written by something else */ }

export const keyOf = (action) => own[action] ?? ACTIONS[action][0];
export const shown = (key) => (key === " " ? "space" : key);

export function classKey(n) {
  return own[`class ${n}`] ?? CLASS_KEYS[n] ?? "";
}

// A key that another action has changes places with it.
export function setKey(name, key, classes) {
  const before = name.startsWith("class ") ? classKey(+name.slice(6)) : keyOf(name);
  for (const other of [...Object.keys(ACTIONS), ...classes.map((_, n) => `class ${n}`)]) {
    const has = other.startsWith("class ") ? classKey(+other.slice(6)) : keyOf(other);
    if (other !== name && has === key) own[other] = before;
  }
  own[name] = key;
  localStorage.setItem(STORED, JSON.stringify(own));
}

export function resetKeys() {
  own = {};
  localStorage.removeItem(STORED);
}

export const normal = (event) => (event.key.length === 1 ? event.key.toUpperCase() : event.key);

// The action of a key, or {class: n}; undefined if it has none.
export function actionOf(event, classes) {
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const key = normal(event);
  const action = Object.keys(ACTIONS).find((name) => keyOf(name) === key);
  if (action) return action;
  const n = classes.findIndex((_, at) => classKey(at) === key);
  return n < 0 ? undefined : { class: n };
}
