// The page: a form, jobs that run, and earlier ones.

import { Api } from "./api.js";
import { Card } from "./card.js";
import { $, announce } from "./dom.js";
import { Followers } from "./events.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";

const ACTIVE = ["queued", "in_progress"];

async function askForKey(rejected) {
  const dialog = $("key-dialog");
  $("key").value = "";
  $("key-error").hidden = !rejected;
  $("key-error").textContent = rejected ? "The service does not know this key." : "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  const key = dialog.returnValue === "yes" ? $("key").value.trim() || null : null;
  $("forget").hidden = key === null;
  return key;
}

class App {
  #cards = new Map();
  #viewed = null;

  constructor() {
    this.api = new Api(askForKey);
    this.followers = new Followers(this.api);
    this.gallery = new Gallery(this);
    this.form = new Form(this.api, (video, sent) => {
      this.#add(video, sent);
      announce(`Queued: ${video.prompt}`);
    });
    $("forget").hidden = this.api.key === null;
    $("forget").addEventListener("click", () => {
      this.api.forget();
      location.reload();
    });
    $("key-cancel").addEventListener("click", () => $("key-dialog").close());
    $("viewer-close").addEventListener("click", () => $("viewer").close());
    $("viewer").addEventListener("close", () => this.#closeViewer());
  }

  async start() {
    await Promise.all([this.#learn(), this.#resume()]);
    await this.gallery.reload();
  }

  isShown(id) {
    return this.#cards.has(id);
  }

  // An earlier job, before everything else.
  open(video) {
    this.#viewed = new Card(this, video);
    if (!this.#viewed.finished) this.followers.add(video.id, this.#viewed.told.bind(this.#viewed));
    $("viewer-card").replaceChildren(this.#viewed.element);
    $("viewer").showModal();
  }

  continueClip(video) {
    $("viewer").close();
    this.form.continueClip(video);
  }

  // A job that there is no more.
  removed(card) {
    this.followers.remove(card.video.id);
    if (card === this.#viewed) $("viewer").close();
    else this.#close(card);
    this.gallery.drop(card.video.id);
  }

  // A finished job that now counts among the earlier ones.
  async dismissed(card) {
    this.#close(card);
    await this.gallery.reload();
  }

  async #learn() {
    try {
      await this.form.learn();
    } catch (error) {
      $("adapter-error").hidden = false;
      $("adapter-error").textContent = `Adapters are not known: ${error.message}`;
    }
  }

  // Jobs that ran before the page was loaded.
  async #resume() {
    try {
      const states = ACTIVE.map((status) => ["status", status]);
      const { data } = await this.api.videos([...states, ["limit", 50]]);
      for (const video of data.reverse()) this.#add(video, null);
    } catch {
      // The list of earlier jobs is asked for next, and says what is wrong.
    }
  }

  #add(video, sent) {
    if (this.#cards.has(video.id)) return;
    const card = new Card(this, video, { sent, dismissible: true });
    this.#cards.set(video.id, card);
    $("cards").prepend(card.element);
    $("now").hidden = false;
    if (sent) card.element.scrollIntoView({ block: "nearest" });
    if (!card.finished) this.followers.add(video.id, card.told.bind(card));
  }

  #close(card) {
    const held = card.element.contains(document.activeElement);
    card.close();
    this.#cards.delete(card.video.id);
    $("now").hidden = this.#cards.size === 0;
    if (held || document.activeElement === document.body) $("earlier-title").focus();
  }

  #closeViewer() {
    if (!this.#viewed) return;
    this.followers.remove(this.#viewed.video.id);
    this.#viewed.close();
    this.#viewed = null;
  }
}

await new App().start();
