// Earlier jobs, a page at a time.

import { STATUSES, stateText } from "./card.js";
import { $, h, release, releaseAll } from "./dom.js";

const PAGE = 12;

export class Gallery {
  #app;
  #last = null;
  #asked = 0;
  #typing;

  // app: api, open(video), and isShown(id) for jobs that stand elsewhere on the page.
  constructor(app) {
    this.#app = app;
    this.list = $("gallery");
    $("filter").addEventListener("submit", (event) => {
      event.preventDefault();
      this.reload();
    });
    $("status").addEventListener("change", () => this.reload());
    $("search").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.reload(), 300);
    });
    $("show-more").addEventListener("click", () => this.#more());
  }

  async reload() {
    clearTimeout(this.#typing);
    this.#last = null;
    await this.#load((tiles) => {
      releaseAll(this.list);
      this.list.replaceChildren(...tiles);
    });
  }

  drop(id) {
    const tile = this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (!tile) return;
    releaseAll(tile);
    tile.remove();
    this.#sayEmpty();
  }

  async #more() {
    const count = this.list.children.length;
    await this.#load((tiles) => this.list.append(...tiles));
    this.list.children[count]?.querySelector("button").focus();
  }

  async #load(place) {
    // An answer that a later question has overtaken is of no use.
    const mine = (this.#asked += 1);
    const query = [
      ["limit", PAGE],
      ["after", this.#last],
      ["status", $("status").value],
      ["q", $("search").value.trim()],
    ];
    let page;
    try {
      page = await this.#app.api.videos(query);
    } catch (error) {
      if (mine !== this.#asked) return;
      $("gallery-error").hidden = false;
      $("gallery-error").textContent = error.message;
      return;
    }
    if (mine !== this.#asked) return;
    $("gallery-error").hidden = true;
    this.#last = page.last_id;
    const others = page.data.filter((video) => !this.#app.isShown(video.id));
    place(others.map((video) => this.#tile(video)));
    $("show-more").hidden = !page.has_more;
    this.#sayEmpty();
  }

  #sayEmpty() {
    const empty = this.list.children.length === 0 && $("show-more").hidden;
    $("empty").hidden = !empty;
    const filtered = $("status").value || $("search").value.trim();
    $("empty").textContent = filtered ? "No clip matches." : "Clips that you make will be kept here.";
  }

  #tile(video) {
    const picture = h("span", { class: "thumb" });
    if (video.status === "completed" && video.request?.video !== false) this.#thumb(video, picture);
    else picture.append(STATUSES[video.status] ?? video.status);
    const state = video.status === "completed" ? duration(video) : stateText(video);
    return h(
      "li",
      { "data-id": video.id, "data-status": video.status },
      h(
        "button",
        { type: "button", class: "tile", onclick: () => this.#app.open(video) },
        picture,
        h("span", { class: "title" }, video.prompt ?? ""),
        h("span", { class: "hint" }, [state, when(video.created_at)].filter(Boolean).join(" · ")),
      ),
    );
  }

  async #thumb(video, picture) {
    // The prompt beside it says what it shows.
    const image = h("img", { alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => {
      release(image);
      picture.replaceChildren("No picture");
    });
    picture.append(image);
    try {
      image.src = await this.#app.api.source(video, "thumbnail");
    } catch {
      picture.replaceChildren("No picture");
    }
  }
}

function duration(video) {
  return video.seconds ? `${Number(Number(video.seconds).toFixed(2))} s` : "";
}

function when(seconds) {
  if (!seconds) return "";
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}
