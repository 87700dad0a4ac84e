// What happens to jobs: streams of server-sent events, read by fetch since EventSource sends no key.

import { parse } from "./json.js";

// Browsers open six connections to a host for all their tabs; other requests need some of them.
const MAX_STREAMS = 2;
const POLL_MS = 4000;
// The service says something every 15 seconds; a connection that is silent for longer is dead.
const SILENCE_MS = 45000;
const FIRST_WAIT_MS = 500;
const LAST_WAIT_MS = 20000;

export async function* messages(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "";
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line === "") {
        if (data.length) yield { name: name || "message", data: parse(data.join("\n")) };
        name = "";
        data = [];
      }
    }
  }
}

// Follows jobs until they are finished: some by a stream, the others by asking now and then.
export class Followers {
  #api;
  #jobs = new Map();

  constructor(api) {
    this.#api = api;
    setInterval(() => this.#poll(), POLL_MS);
    document.addEventListener("visibilitychange", () => this.#fill());
  }

  // told(name, data): an event, `video` with all of the job, or `lost` while there is no connection.
  // It returns whether the job is finished.
  add(id, told) {
    this.#jobs.set(id, { told, stream: null });
    this.#fill();
  }

  remove(id) {
    this.#jobs.get(id)?.stream?.abort();
    this.#jobs.delete(id);
    this.#fill();
  }

  #fill() {
    const jobs = [...this.#jobs];
    if (document.hidden) {
      for (const [, job] of jobs) job.stream?.abort();
      for (const [, job] of jobs) job.stream = null;
      return;
    }
    let free = MAX_STREAMS - jobs.filter(([, job]) => job.stream).length;
    for (const [id, job] of jobs) {
      if (job.stream || free <= 0) continue;
      free -= 1;
      job.stream = new AbortController();
      this.#stream(id, job, job.stream.signal);
    }
  }

  async #stream(id, job, signal) {
    let wait = FIRST_WAIT_MS;
    while (!signal.aborted) {
      try {
        for await (const { name, data } of this.#connection(id, signal)) {
          wait = FIRST_WAIT_MS;
          if (signal.aborted) return;
          if (job.told(name, data)) return this.remove(id);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 404) return this.#gone(id, job);
        // Nobody gave a key: that must not be asked for again and again.
        if (error.status === 401) return this.remove(id);
        job.told("lost", {});
      }
      await new Promise((done) => setTimeout(done, wait * (0.75 + Math.random() / 2)));
      wait = Math.min(2 * wait, LAST_WAIT_MS);
    }
  }

  async *#connection(id, signal) {
    const silence = new AbortController();
    const either = AbortSignal.any([signal, silence.signal]);
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    heard();
    try {
      const path = `v1/videos/${encodeURIComponent(id)}/events`;
      const headers = { Accept: "text/event-stream" };
      const response = await this.#api.fetch(path, { headers, signal: either });
      yield* messages(response.body, heard);
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  #gone(id, job) {
    job.told("gone", {});
    this.remove(id);
  }

  async #poll() {
    if (document.hidden) return;
    for (const [id, job] of [...this.#jobs]) {
      if (job.stream || !this.#jobs.has(id)) continue;
      try {
        if (job.told("video", await this.#api.video(id))) this.remove(id);
      } catch (error) {
        if (error.status === 404) this.#gone(id, job);
        else if (error.status === 401) this.remove(id);
        else job.told("lost", {});
      }
    }
  }
}
