// Dialogs: login, reviewer, keys, a class by its name; and the row of filters.

import { setLogin } from "./api.js";
import { ACTIONS, classKey, keyOf, normal, resetKeys, setKey, shown } from "./keys.js";
import { $, node } from "./panel.js";

function open(...content) {
  $("dialog").replaceChildren(...content);
  if (!$("dialog").open) $("dialog").showModal();
}

const buttons = (...some) => node("div", { class: "row" }, ...some);
const close = () => node("button", { type: "button", onclick: () => $("dialog").close() }, "Close");

// Asks for a line of text; `done` returns an error, or nothing if it is accepted.
function line(title, text, value, type, done) {
  const input = node("input", { type, value, "aria-label": title, autocomplete: "off" });
  const error = node("p", { role: "alert" });
  const form = node("form", { method: "dialog", onsubmit: (event) => {
    const wrong = done(input.value.trim());
    if (wrong) event.preventDefault();
    error.textContent = wrong ?? "";
  } }, node("h2", {}, title), node("p", {}, text), input, error, buttons(node("button", {}, "OK")));
  open(form);
  input.select();
}

export function askLogin(done) {
  line("Login", "The line that .prefect/review_login in the project's folder has. `points2model review` opens a page that needs none.",
    "", "password", (value) => {
      if (!value.includes(":")) return "a login is user:password, the whole line";
      setLogin(value);
      done();
    });
}

const NAME = /^[a-z0-9]([a-z0-9._@+-]{0,62}[a-z0-9])?$/;

export function askReviewer(reviewer, done) {
  line("Whose decisions are these?", "Each reviewer has a file; decisions of two never replace each other.", reviewer, "text", (value) => {
    if (!NAME.test(value)) return "1 to 64 lower-case letters, digits and . _ @ + -, with a letter or digit at both ends";
    done(value);
  });
}

export function showKeys(classes, changed) {
  const row = (name, key, text, more = "") => node("tr", {}, node("td", {}, text, more && node("small", {}, ` ${more}`)), node("td", {},
    node("button", { type: "button", onclick: (event) => {
      const button = event.currentTarget;
      button.classList.add("waiting");
      button.replaceChildren("press a key");
      button.addEventListener("keydown", (pressed) => {
        pressed.preventDefault();
        pressed.stopPropagation();
        if (["Shift", "Control", "Alt", "Meta", "Tab"].includes(pressed.key)) return;
        if (pressed.key !== "Escape") setKey(name, normal(pressed), classes);
        changed();
        showKeys(classes, changed);
      });
    } }, node("kbd", {}, shown(key) || "none"))));
  open(
    node("h2", {}, "Keys"), node("p", {}, "Press one to change it; a key that is in use changes places. They are kept in this browser."),
    node("table", { class: "keys" }, node("tbody", {},
      ...Object.entries(ACTIONS).map(([name, [, text, more]]) => row(name, keyOf(name), text, more)),
      ...classes.slice(0, 20).map((name, n) => row(`class ${n}`, classKey(n), name)))),
    buttons(node("button", { type: "button", onclick: () => { resetKeys(); changed(); showKeys(classes, changed); } }, "As they were"), close()),
  );
}

export function chooseClass(classes, done) {
  const list = node("div", { class: "choices" });
  const input = node("input", { type: "search", "aria-label": "class", placeholder: "a part of its name", autocomplete: "off" });
  const fill = () => {
    const found = classes.filter((name) => name.toLowerCase().includes(input.value.trim().toLowerCase())).slice(0, 50);
    list.replaceChildren(...found.map((name) => node("button", { type: "button", onclick: () => { $("dialog").close(); done(name); } }, name)));
  };
  input.addEventListener("input", fill);
  const form = node("form", { method: "dialog", onsubmit: (event) => {
    event.preventDefault();
    list.querySelector("button")?.click();
  } }, node("h2", {}, "Class"), input, list, buttons(close()));
  fill();
  open(form);
  input.focus();
}

// The row of filters; `changed` gets them.
export function makeFilters(project, filters, reviewer, changed) {
  const choice = (name, text, options) => node("label", {}, text, node("select", { name }, ...options.map(([value, label]) =>
    node("option", { value, selected: String(now[name] ?? "") === value }, label))));
  const form = $("filters");
  const now = filters.by ? { ...filters, decided: `by ${filters.by}` } : filters;
  form.replaceChildren(
    choice("order", "order", Object.entries(project.orders)),
    choice("category", "class", [["", "all"], ...project.classes.map((one) => [String(one.id), one.name])]),
    ...(project.proposers.length ? [choice("proposer", "mask of", [["", "all"], ...project.proposers.map((name) => [name, name])])] : []),
    choice("mask", "mask", [["with", "has one"], ["ok", "refined"], ["rough", "rough"], ["without", "none"], ["all", "all"]]),
    choice("decided", "decided", [["no", "no"], ["yes", "yes"], ["contradicted", "contradicted"], ["all", "all"],
      ...[...new Set([reviewer, ...project.reviewers])].map((name) => [`by ${name}`, name === reviewer ? "by you" : `by ${name}`])]),
    node("label", {}, "image", node("input", { name: "image", value: filters.image ?? "", placeholder: "a part of its name", autocomplete: "off" })),
    node("p", {}, project.words),
  );
  form.onsubmit = (event) => event.preventDefault();
  form.onchange = (event) => {
    const isBy = form.elements.decided.value.startsWith("by ");
    if (event.target.name === "decided" && project.orders.latest) form.elements.order.value = isBy ? "latest" : Object.keys(project.orders)[0];
    const found = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
    if (found.category) found.category = Number(found.category);
    if (isBy) Object.assign(found, { decided: "all", by: found.decided.slice(3) });
    changed(found);
  };
}
