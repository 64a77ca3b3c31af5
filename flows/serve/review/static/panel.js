// What is beside the picture: the object in words, its classes, what was decided, and the buttons of actions.

import { ACTIONS, classKey, keyOf, shown } from "./keys.js";

export const $ = (id) => document.getElementById(id);

export function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export const number = (value) => value.toLocaleString("en");

export function showProgress(now, position, total) {
  $("place").textContent = position === null ? "not in the queue" : total ? `${number(position + 1)} of ${number(total)}` : "";
  $("decided").textContent = `${number(now.decided)} of ${number(now.objects)} decided`;
  $("pace").textContent = now.pace === null ? "" : `${number(now.pace)} an hour`;
}

export function showObject(object) {
  const parts = [object.decided_category && object.decided_category !== object.category ? `was ${object.category}` : "",
    object.drawn ? "a reviewer's mask" : object.mask ? "" : "no mask"].filter(Boolean).join(", ");
  const facts = [object.image.name, object.proposer && `mask of ${object.proposer}`].filter(Boolean).join(" · ");
  $("about").replaceChildren(
    node("h2", {}, object.decided_category ?? object.category, node("small", {}, parts)),
    node("ul", { title: "why it is here" }, ...object.why.map((text) => node("li", {}, text))),
    node("p", { class: "file" }, facts),
  );
}

export function showClasses(classes, current, choose) {
  const first = classes.map((name, n) => [name, n]).filter(([name, n]) => classKey(n) || name === current);
  $("classes").replaceChildren(...first.map(([name, n]) => node(
    "button", { type: "button", "aria-pressed": String(name === current), title: name, onclick: () => choose(name) },
    node("kbd", {}, classKey(n) || "·"), node("span", {}, name),
  )));
}

function ago(time) {
  const minutes = Math.round((Date.now() - Date.parse(time)) / 60000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min ago`;
  return minutes < 1440 ? `${Math.round(minutes / 60)} h ago` : new Date(time).toLocaleDateString();
}

// A reviewer's own latest decision on an object; undefined: there is none.
export function ownLatest(object, reviewer) {
  return object.decisions.filter((one) => one.reviewer === reviewer).reduce((a, b) => (a && a.time > b.time ? a : b), undefined);
}

// Reviewers with whom one may agree: those who contradict, or, where one has decided nothing, all.
export function others(object, reviewer) {
  const names = object.contradicted[reviewer] === undefined && ownLatest(object, reviewer) ? [] : object.decisions.map((one) => one.reviewer);
  return [...new Set(names)].filter((name) => name !== reviewer);
}

// `does`: withdraw (a decision), agree (with a reviewer).
export function showSaid(object, reviewer, does) {
  const latest = ownLatest(object, reviewer), [first] = others(object, reviewer);
  const button = (action, isFirst, text, title, onclick) => node("button", { type: "button", class: "small", title, onclick },
    ...(isFirst ? [node("kbd", {}, shown(keyOf(action)))] : []), text);
  const rows = object.decisions.map((one) => node("p", {},
    node("b", {}, one.reviewer === reviewer ? "you" : one.reviewer), `: ${one.what} `, node("time", { datetime: one.time }, ago(one.time)),
    ...(one.reviewer === reviewer ? [button("withdraw", one === latest, "take back", "this decision", () => does.withdraw(one))] : [])));
  rows.push(...others(object, reviewer).map((name) => node("p", {}, button("agree", name === first, `decide as ${name}`, "mask, class and clicks", () => does.agree(name)))));
  const contradicted = Object.keys(object.contradicted).length > 0;
  if (contradicted) {
    rows.unshift(node("p", { class: "bad" }, "Contradiction: the object counts as undecided until one of you undoes the decision or decides as the other."));
  } else if (object.verdict) {
    rows.unshift(node("p", {}, node("span", { class: `verdict ${object.verdict}` }, { accept: "accepted", reject: "rejected" }[object.verdict] ?? "drawn")));
  }
  $("said").replaceChildren(...rows);
}

export function showActions(names, run, disabled = () => false, on = () => false) {
  const before = { skip: true, undo: true, edit: true };
  $("actions").replaceChildren(...names.flatMap((name) => [
    ...(before[name] ? [node("hr")] : []),
    node("button", { type: "button", class: `${name}${on(name) ? " on" : ""}`, title: ACTIONS[name][2] ?? ACTIONS[name][1], disabled: disabled(name),
      onclick: (event) => { event.currentTarget.blur(); run(name); } }, node("kbd", {}, shown(keyOf(name))), ACTIONS[name][1]),
  ]));
}

// A message that stays until the next one; null takes it away.
export function say(text, soft = false) {
  $("message").hidden = !text;
  $("message").className = soft ? "soft" : "";
  $("message").textContent = text ?? "";
}

let fading;
export function saved(text) {
  $("saved").textContent = text;
  $("saved").classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => $("saved").classList.remove("shown"), 900);
}
