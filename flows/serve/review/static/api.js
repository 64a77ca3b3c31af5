// Requests to the server, with the login. A request whose response is lost is sent again: decisions that are made
// already aren't made twice (tasks/review/desk.py).

const AGAIN_AFTER = 1000; // milliseconds

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// No response came, or not all of it.
export class Lost extends Error {}

let login = sessionStorage.getItem("login");

// The command opens the page with the login behind `#`, which browsers send to no server.
const given = new URLSearchParams(location.hash.slice(1)).get("login");
if (given) {
  setLogin(given);
  history.replaceState(null, "", location.pathname);
}

export function setLogin(value) {
  login = value.trim();
  sessionStorage.setItem("login", login);
}

async function send(path, body, read) {
  const headers = { Authorization: `Basic ${btoa(login ?? "")}` };
  const options = { headers, cache: "no-store" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response, content;
  try {
    response = await fetch(`api/${path}`, options);
    content = await (response.ok ? read(response) : response.text());
  } catch (error) {
    throw new Lost(error.message);
  }
  if (response.ok) return content;
  let text = content;
  try {
    const found = JSON.parse(content);
    const detail = found.detail ?? found.exception_message;
    text = typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch { /* no JSON */ }
  throw new Refused(response.status, text || `the server refuses: ${response.status}`);
}

const json = (response) => response.json();
export const get = (path) => send(path, undefined, json);
export const post = (path, body) => send(path, body, json);
export const blob = (path) => send(path, undefined, (response) => response.blob());

// Sends until there is a response. `onLost` gets true when the connection is lost, false when it is back.
export async function untilAnswered(request, onLost) {
  for (let lost = false; ; lost = true) {
    try {
      const found = await request();
      if (lost) onLost(false);
      return found;
    } catch (error) {
      if (!(error instanceof Lost)) {
        if (lost) onLost(false);
        throw error;
      }
      onLost(true);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER));
    }
  }
}

export function pictureOf(image, [x, y, w, h], longest) {
  return blob(`pictures/${image}?x=${x}&y=${y}&w=${w}&h=${h}&longest=${longest}`);
}
