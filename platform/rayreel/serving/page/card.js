// One job: where it stands while it runs, and its clip once it is done.

import { $, announce, button, duration, h, release, releaseAll } from "./dom.js";
import { curl } from "./curl.js";
import { digits } from "./json.js";

const STAGES = {
  text: "Reading the prompt",
  stage1: "Drawing",
  stage2: "Refining",
  decode: "Writing the file",
};
export const FINISHED = ["completed", "failed", "cancelled"];
export const STATUSES = {
  queued: "Queued",
  in_progress: "Running",
  completed: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

// What an event changes in a job.
export function after(video, name, data) {
  switch (name) {
    case "queued":
      return { ...video, status: "queued", stage: "", step: 0, steps: 0, preview: 0, ...data };
    case "running":
      return { ...video, status: "in_progress", ...data };
    case "prompt":
      return { ...video, written_prompt: data.prompt };
    case "done":
      return data.video;
    case "video":
      return data;
    case "failed":
      return { ...video, status: "failed", error: data.error ?? data };
    case "cancelled":
      return { ...video, status: "cancelled" };
    default:
      return video;
  }
}

function ahead(video) {
  if (video.position === null || video.position === undefined) return "";
  if (video.position === 0) return "next in line";
  return video.position === 1 ? "1 job ahead" : `${video.position} jobs ahead`;
}

export function stateText(video) {
  const parts = [];
  if (video.status === "queued") parts.push("Queued", ahead(video));
  else if (video.status === "in_progress") {
    parts.push(video.cancelling ? "Stopping" : (STAGES[video.stage] ?? (video.stage || "Starting")));
    if (video.steps) parts.push(`step ${video.step} of ${video.steps}`);
  } else parts.push(STATUSES[video.status] ?? video.status);
  if (!FINISHED.includes(video.status)) {
    if (video.attempt > 1) parts.push(`try ${video.attempt}`);
    if (typeof video.eta_s === "number" && !video.cancelling) parts.push(`about ${duration(video.eta_s)} left`);
  }
  return parts.filter(Boolean).join(" · ");
}

function facts(video) {
  const asked = video.request ?? {};
  const parts = [];
  if (video.width && video.height) parts.push(`${video.width} × ${video.height}`);
  if (video.seconds) parts.push(`${Number(Number(video.seconds).toFixed(2))} s`);
  if (video.seed !== null && video.seed !== undefined) parts.push(`seed ${digits(video.seed)}`);
  const loras = asked.loras ?? (asked.lora ? [asked.lora] : []);
  for (const lora of loras) parts.push(lora.path ?? lora);
  if (video.priority && video.priority !== "normal") parts.push(`${video.priority} priority`);
  return parts.join(" · ");
}

// A request as it can be sent anew: files that the service keeps for a job come from disk again.
function sendable(video) {
  const kept = `uploads/${video.id}/`;
  const files = [];
  const place = (value) => {
    if (typeof value === "string" && value.startsWith(kept)) {
      files.push([`file${files.length + 1}`, value.slice(kept.length)]);
      return `upload://${files.at(-1)[0]}`;
    }
    if (Array.isArray(value)) return value.map(place);
    if (value === null || typeof value !== "object" || JSON.isRawJSON?.(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, place(inner)]));
  };
  return { request: place(video.request), files };
}

export class Card {
  #app;
  #lost = false;
  #preview = 0;
  #shown = null;

  // app: api, and continueClip(video), removed(card), dismissed(card).
  // sent: the request as it was sent, and names of its files, where this page sent it.
  constructor(app, video, { sent = null, dismissible = false } = {}) {
    this.#app = app;
    this.video = video;
    this.sent = sent;
    this.dismissible = dismissible;
    this.prompt = h("p", { class: "prompt", id: `prompt-${video.id}` });
    this.facts = h("p", { class: "facts" });
    this.state = h("p", { class: "state" });
    this.progress = h("progress", { max: 1, "aria-label": "Progress" });
    this.written = h("p");
    this.writing = h("details", { hidden: true }, h("summary", {}, "Written prompt"), this.written);
    this.notes = h("ul", { class: "notes", "aria-label": "Notes", hidden: true });
    this.error = h("p", { class: "error", hidden: true });
    this.media = h("div", { class: "media", hidden: true });
    this.actions = h("div", { class: "actions" });
    this.element = h(
      "article",
      { class: "card", tabIndex: -1, "aria-labelledby": this.prompt.id },
      this.media,
      this.prompt,
      this.facts,
      this.writing,
      this.notes,
      this.state,
      this.progress,
      this.error,
      this.actions,
    );
    this.show(video);
  }

  get finished() {
    return FINISHED.includes(this.video.status);
  }

  // An event of the job; returns whether it is finished.
  told(name, data) {
    if (name === "gone") {
      this.#app.removed(this);
      return true;
    }
    this.#lost = name === "lost";
    const before = this.video.status;
    this.show(after(this.video, name, data));
    if (this.video.status !== before) this.#announce();
    return this.finished;
  }

  show(video) {
    this.video = video;
    this.prompt.textContent = video.prompt ?? "";
    this.facts.textContent = facts(video);
    this.state.textContent = stateText(video) + (this.#lost ? " · connection lost, trying again" : "");
    this.#showProgress(video);
    this.writing.hidden = !video.written_prompt || video.written_prompt === video.prompt;
    this.written.textContent = video.written_prompt ?? "";
    this.notes.hidden = !video.notes?.length;
    this.notes.replaceChildren(...(video.notes ?? []).map((note) => h("li", {}, note)));
    if (video.error) this.#fail(video.error.message);
    this.element.dataset.status = video.status;
    this.#showPreview(video);
    // Buttons stay, with the focus, as long as they are the same.
    const shown = this.finished ? video.status : "active";
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#showActions(video);
    if (video.status === "completed") this.#showMedia(video);
  }

  close() {
    this.#preview = -1;
    releaseAll(this.element);
    this.element.remove();
  }

  #announce() {
    const said = { in_progress: "Started", completed: "Ready", failed: "Failed", cancelled: "Cancelled" };
    const word = said[this.video.status];
    if (word) announce(`${word}: ${this.video.prompt}`);
  }

  #fail(message) {
    this.error.hidden = !message;
    this.error.textContent = message ?? "";
  }

  #showProgress(video) {
    this.progress.hidden = this.finished;
    // Of all its work, by what its stages cost; before the first step nothing is known of it.
    const waits = video.status === "in_progress" && !video.progress && !video.steps;
    if (waits) this.progress.removeAttribute("value");
    else this.progress.value = (video.progress ?? 0) / 100;
  }

  #showActions(video) {
    const held = this.actions.contains(document.activeElement);
    const parts = [];
    if (!this.finished) parts.push(button("Cancel", () => this.#cancel()));
    if (video.status === "completed") {
      parts.push(button("Download", () => this.#download()));
      parts.push(button("Continue this clip", () => this.#app.continueClip(this.video)));
    }
    parts.push(button("Copy as curl", (event) => this.#copy(event.target)));
    if (this.finished) {
      parts.push(button("Delete", () => this.#delete(), { class: "quiet" }));
      if (this.dismissible) parts.push(button("Put away", () => this.#app.dismissed(this), { class: "quiet" }));
    }
    this.actions.replaceChildren(...parts);
    if (held) this.element.focus();
  }

  // A picture of what is being made, as large as the clip will be, and where that will be.
  async #showPreview(video) {
    const wanted = video.status === "in_progress" ? (video.preview ?? 0) : 0;
    if (wanted === this.#preview) return;
    this.#preview = wanted;
    const source = wanted ? await this.#app.api.preview(video.id).catch(() => null) : null;
    // A newer one, or the clip itself, has come meanwhile.
    if (this.#preview !== wanted || (wanted && !source)) {
      if (source) URL.revokeObjectURL(source);
      return;
    }
    const shown = this.media.querySelector("img");
    if (!source) {
      if (!shown) return;
      release(shown);
      shown.remove();
      this.media.hidden = true;
      return;
    }
    const image = shown ?? h("img", { alt: `Preview: ${video.prompt}` });
    [image.width, image.height] = [video.width, video.height];
    release(image);
    image.src = source;
    if (!shown) this.media.replaceChildren(image);
    this.media.hidden = false;
  }

  async #showMedia(video) {
    const soundOnly = video.request?.video === false;
    const player = h(soundOnly ? "audio" : "video", {
      controls: true,
      preload: "metadata",
      "aria-label": `Clip: ${video.prompt}`,
    });
    if (!soundOnly) {
      player.playsInline = true;
      player.loop = true;
      if (video.width) [player.width, player.height] = [video.width, video.height];
    }
    this.media.replaceChildren(player);
    this.media.hidden = false;
    const { api } = this.#app;
    try {
      if (!soundOnly) player.poster = await api.source(video, "thumbnail").catch(() => "");
      player.src = await api.source(video, soundOnly ? "audio" : "video");
      if (!this.element.isConnected && !this.element.parentNode) release(player);
    } catch (error) {
      this.media.hidden = true;
      this.#fail(error.message);
    }
    player.addEventListener("error", () => this.#fail("The clip cannot be played; try a download."));
  }

  async #try(work) {
    this.#fail(this.video.error?.message);
    try {
      await work();
    } catch (error) {
      this.#fail(error.message);
    }
  }

  #cancel() {
    return this.#try(async () => {
      const video = await this.#app.api.cancel(this.video.id);
      // Its end may have been told before this answer, which is older.
      if (!this.finished) this.told("video", video);
    });
  }

  #download() {
    return this.#try(async () => {
      const variant = this.video.request?.video === false ? "audio" : "video";
      // An old token may have run out.
      const video = await this.#app.api.video(this.video.id);
      const href = await this.#app.api.source(video, variant);
      h("a", { href, download: this.video.id + (variant === "video" ? ".mp4" : "") }).click();
      // The browser has begun with it by then.
      if (href.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(href), 60000);
    });
  }

  async #copy(pressed) {
    const { request, files } = this.sent ?? sendable(this.video);
    const text = curl(request, files, this.#app.api.key !== null);
    try {
      await navigator.clipboard.writeText(text);
      pressed.textContent = "Copied";
      announce("Copied");
      setTimeout(() => (pressed.textContent = "Copy as curl"), 2000);
    } catch {
      // Browsers give no clipboard to pages that came without TLS from elsewhere.
      this.element.querySelector("pre")?.remove();
      const command = h("pre", { tabIndex: 0, "aria-label": "The request as curl" }, text);
      this.actions.before(command);
      command.focus();
      getSelection().selectAllChildren(command);
    }
  }

  async #delete() {
    const dialog = $("confirm");
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    if (dialog.returnValue !== "yes") return;
    await this.#try(async () => {
      await this.#app.api.remove(this.video.id);
      announce("Deleted");
      this.#app.removed(this);
    });
  }
}
