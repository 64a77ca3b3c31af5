// The queue of the page: a frozen order of objects on the server, its places, and the next one fetched ahead.

import { get, pictureOf, post, Refused } from "./api.js";

const LONGEST = 1024;
const KEPT = 6;
const KEPT_URLS = 40;
const urls = [];

export class Queue {
  constructor(filters) {
    this.filters = filters;
    this.total = 0;
    this.ahead = new Map(); // position -> promise of {object, url}
  }

  // Makes the queue, to begin at an object if it is in it; returns the position to begin at.
  async make(at) {
    const made = await post("queue", { filters: this.filters, at });
    this.name = made.queue;
    this.total = made.total;
    this.clear();
    return made.position;
  }

  clear() {
    this.ahead.clear();
  }

  // The object at a position, with its picture.
  at(position) {
    if (!this.ahead.has(position)) {
      const found = get(`queue/${this.name}/${position}`).then(withPicture);
      found.catch(() => this.ahead.delete(position));
      this.ahead.set(position, found);
      for (const old of this.ahead.keys()) {
        if (this.ahead.size <= KEPT) break;
        if (old !== position) this.ahead.delete(old);
      }
    }
    return this.ahead.get(position);
  }

  forget(position) {
    this.ahead.delete(position);
  }

  // The first undecided position from one on, or null.
  async undecided(position) {
    return (await get(`queue/${this.name}/${position}/undecided`)).position;
  }

  // The position of an object, or null.
  async placeOf(id) {
    return (await get(`queue/${this.name}/place/${id}`)).position;
  }
}

export async function withPicture(object) {
  const picture = await pictureOf(object.image.id, object.window, LONGEST);
  const url = URL.createObjectURL(picture);
  urls.push(url);
  if (urls.length > KEPT_URLS) URL.revokeObjectURL(urls.shift());
  return { object, url };
}

export const isGone = (error) => error instanceof Refused && error.status === 410;
