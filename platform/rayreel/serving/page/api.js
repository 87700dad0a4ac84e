// The HTTP API: requests with the key where one is needed, errors as values with their field.

import { parse, stringify } from "./json.js";

const STORED = "rayreel-key";

export class ApiError extends Error {
  constructor(message, { status = 0, param = null, code = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export class Api {
  #asking = null;

  // askForKey(rejected): a promise of a key, or of null if nobody gives one.
  constructor(askForKey) {
    this.askForKey = askForKey;
  }

  get key() {
    return sessionStorage.getItem(STORED);
  }

  forget() {
    sessionStorage.removeItem(STORED);
  }

  // A response that is all right; the key is asked for once for all requests that wait for it.
  async fetch(path, options = {}) {
    for (;;) {
      const used = this.key;
      const headers = new Headers(options.headers);
      if (used) headers.set("Authorization", `Bearer ${used}`);
      let response;
      try {
        response = await fetch(path, { cache: "no-store", ...options, headers });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The service does not answer. Is it still running?");
      }
      if (response.ok) return response;
      if (response.status !== 401) throw await refusal(response);
      if (this.key === used) {
        this.#asking ??= this.askForKey(used !== null).finally(() => (this.#asking = null));
        const given = await this.#asking;
        if (!given) throw await refusal(response);
        sessionStorage.setItem(STORED, given);
      }
    }
  }

  async json(path, options = {}) {
    return parse(await (await this.fetch(path, options)).text());
  }

  models() {
    return this.json("v1/models");
  }

  video(id) {
    return this.json(`v1/videos/${encodeURIComponent(id)}`);
  }

  // query: pairs of names and values; empty values are left out.
  videos(query) {
    const given = query.filter(([, value]) => value);
    return this.json(`v1/videos?${new URLSearchParams(given)}`);
  }

  // A new job; with a file as multipart, whose field `request` says the rest.
  create(request, image, idempotencyKey, signal) {
    const headers = { "Idempotency-Key": idempotencyKey };
    let body = stringify(request);
    if (image) {
      const form = new FormData();
      form.append("request", body);
      form.append("input_reference", image, image.name);
      body = form;
    } else {
      headers["Content-Type"] = "application/json";
    }
    return this.json("v1/videos", { method: "POST", headers, body, signal });
  }

  // What a running job looks like so far, as an address of memory; its user lets go of it.
  async preview(id) {
    const response = await this.fetch(`v1/videos/${encodeURIComponent(id)}/preview`);
    return URL.createObjectURL(await response.blob());
  }

  cancel(id) {
    return this.json(`v1/videos/${encodeURIComponent(id)}/cancel`, { method: "POST" });
  }

  async remove(id) {
    await this.fetch(`v1/videos/${encodeURIComponent(id)}`, { method: "DELETE" });
  }

  // Where an element finds a file. Elements send no key: a token stands for it in the address, or
  // else the file is fetched into memory.
  async source(video, variant) {
    const path = `v1/videos/${encodeURIComponent(video.id)}/content?variant=${variant}`;
    if (!this.key) return path;
    if (video.token) return `${path}&token=${encodeURIComponent(video.token)}`;
    return URL.createObjectURL(await (await this.fetch(path)).blob());
  }
}

async function refusal(response) {
  const text = await response.text();
  let error = {};
  try {
    error = parse(text).error ?? {};
  } catch {
    // A proxy in between answers in its own words; the status says enough.
  }
  return new ApiError(error.message ?? `The service answered with status ${response.status}.`, {
    status: response.status,
    param: error.param ?? null,
    code: error.code ?? null,
    retryAfter: Number(response.headers.get("Retry-After")) || null,
  });
}
