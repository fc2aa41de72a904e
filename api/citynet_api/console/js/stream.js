// Server-sent events over fetch, because EventSource cannot send the token in a header. Resumes by the last id; every byte,
// heartbeats included, is proof of life, and its absence is noticed.

import { Problem } from "./api.js";

const SILENCE_MS = 12_000; // the server sends a heartbeat every 5 s
const RETRY_MS = 1000;
const RETRY_MS_MAX = 5000;
const LINE_CHARS_MAX = 1 << 20;

/** Parses the lines of an event stream; gives `{event, id, data}` to `emit` at each empty line. */
export class EventParser {
  #text = "";
  #event = {};

  constructor(emit) {
    this.emit = emit;
  }

  push(chunk) {
    this.#text += chunk;
    const lines = this.#text.split(/\r\n|\n|\r/);
    this.#text = lines.pop();
    if (this.#text.length > LINE_CHARS_MAX) throw new Problem(0);
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === "") {
      if (this.#event.data !== undefined) this.emit({ event: "message", ...this.#event });
      this.#event = {};
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#event.data = this.#event.data === undefined ? value : `${this.#event.data}\n${value}`;
    else if (field === "event" || field === "id") this.#event[field] = value;
  }
}

/**
 * The live stream. `on` has: link(state) with state "connecting", "live" or "broken"; alive() at every byte;
 * transition(data), database(data), position(id) and denied().
 */
export class Stream {
  #api;
  #on;
  #after;
  #stopped = false;
  #abort = null;
  #wake = null;

  constructor(api, after, on) {
    this.#api = api;
    this.#after = after;
    this.#on = on;
    window.addEventListener("online", this.#hurry);
  }

  #hurry = () => this.#wake?.();

  stop() {
    this.#stopped = true;
    window.removeEventListener("online", this.#hurry);
    this.#abort?.abort();
    this.#wake?.();
  }

  async run() {
    let pause = RETRY_MS;
    while (!this.#stopped) {
      let lived = false;
      try {
        await this.#once(() => (lived = true));
      } catch (error) {
        if (error instanceof Problem && (error.status === 401 || error.status === 403)) {
          if (!this.#stopped) this.#on.denied();
          return;
        }
      }
      if (this.#stopped) return;
      this.#on.link("broken");
      pause = lived ? RETRY_MS : Math.min(pause * 2, RETRY_MS_MAX);
      await this.#wait(pause * (0.75 + Math.random() / 2));
    }
  }

  async #once(opened) {
    const abort = new AbortController();
    this.#abort = abort;
    let timer = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const response = await fetch("/v1/alerts/stream", {
        headers: { ...this.#api.headers, Accept: "text/event-stream", "Last-Event-ID": String(this.#after) },
        cache: "no-store",
        signal: abort.signal,
      });
      if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
      opened();
      const parser = new EventParser((event) => this.#take(event));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE_MS);
        this.#on.alive();
        parser.push(value);
      }
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  #take({ event, id, data }) {
    const content = JSON.parse(data);
    if (event === "ready") {
      if (content.after < this.#after) this.#on.position(content.after);
      this.#on.link("live");
    } else if (event === "transition") this.#on.transition(content);
    else if (event === "database") this.#on.database(content);
    if (id !== undefined) this.#after = Number(id);
  }

  #wait(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
