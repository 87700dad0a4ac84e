// What a clip shall be like, from fields to a request, and errors back to their fields.

import { $, h } from "./dom.js";
import { stringify, whole } from "./json.js";
import { Picture } from "./picture.js";

// Fields of the API that have another name here; the rest go by the start of the param.
const FIELDS = {
  prompt: "prompt",
  size: "size",
  width: "width",
  height: "height",
  seconds: "seconds",
  num_frames: "seconds",
  seed: "seed",
  images: "image",
  image: "image",
  input_reference: "image",
  loras: "adapter",
  lora: "adapter",
  priority: "priority",
  negative_prompt: "negative",
  enhance: "enhance",
  extend: "extend",
};

export class Form {
  #api;
  #created;
  #extends = null;
  #tried = null;

  // created(video, sent): a job was accepted.
  constructor(api, created) {
    this.#api = api;
    this.#created = created;
    this.picture = new Picture((message) => this.#say("image", message));
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
    });
    $("form").addEventListener("input", (event) => this.#say(event.target.id, ""));
    $("size").addEventListener("change", () => this.#showCustom());
    $("adapter").addEventListener("change", () => {
      $("strength-field").hidden = !$("adapter").value;
    });
    $("continuing-stop").addEventListener("click", () => {
      this.continueClip(null);
      $("prompt").focus();
    });
    // Browsers fill in what was chosen before a reload.
    this.#showCustom();
  }

  // What the service makes when nobody says otherwise, and its adapters.
  async learn() {
    const { data } = await this.#api.models();
    const adapters = data.filter((model) => model.parent);
    $("adapter").append(...adapters.map(({ id }) => h("option", { value: id }, id)));
    const { size, seconds } = data.find((model) => !model.parent);
    // What was chosen by now stays.
    if (seconds && $("seconds").value === $("seconds").defaultValue) $("seconds").value = seconds;
    if (size && $("size").selectedIndex === 0) this.#offer(size);
  }

  #offer(size) {
    const known = [...$("size").options].some(({ value }) => value === size);
    if (!known) $("size").prepend(h("option", { value: size }, `Usual, ${size.replace("x", " × ")}`));
    $("size").value = size;
    const [width, height] = size.split("x");
    for (const [side, pixels] of Object.entries({ width, height }))
      if ($(side).value === $(side).defaultValue) $(side).value = pixels;
  }

  // A job's clip that the next one goes on from; null for none.
  continueClip(video) {
    this.#extends = video?.id ?? null;
    $("continuing").hidden = !video;
    $("continuing-prompt").textContent = video?.prompt ?? "";
    // Size and start are the clip's.
    $("image-field").hidden = Boolean(video);
    $("size-field").hidden = Boolean(video);
    this.#showCustom();
    if (video) this.picture.clear();
    this.#say("extend", "");
    if (!video) return;
    $("prompt").focus();
    $("prompt").scrollIntoView({ block: "nearest" });
  }

  #showCustom() {
    const custom = !$("size").value && !this.#extends;
    for (const field of document.querySelectorAll("[data-custom]")) field.hidden = !custom;
  }

  #request() {
    const request = { prompt: $("prompt").value };
    if (this.#extends) request.extend = { clip: this.#extends };
    else request.size = $("size").value || `${$("width").value}x${$("height").value}`;
    request.seconds = Number($("seconds").value);
    if ($("seed").value.trim()) request.seed = whole($("seed").value.trim());
    if ($("adapter").value)
      request.loras = [{ path: $("adapter").value, strength: Number($("strength").value) }];
    if ($("priority").value !== "normal") request.priority = $("priority").value;
    if ($("negative").value.trim()) request.negative_prompt = $("negative").value;
    if ($("enhance").checked) request.enhance = true;
    return request;
  }

  // Shows what cannot be sent at all; returns whether there is something of that kind.
  #faulty() {
    const faults = {};
    if (!$("prompt").value.trim()) faults.prompt = "Say what the clip shows.";
    if (!(Number($("seconds").value) > 0)) faults.seconds = "Expected more than 0.";
    const seed = $("seed").value.trim();
    if (seed && !/^\d+$/.test(seed)) faults.seed = "Expected a whole number, or nothing.";
    if ($("adapter").value && !$("strength").value) faults.strength = "Expected a number, such as 1.";
    if (!$("size").value && !this.#extends)
      for (const side of ["width", "height"])
        if (!(Number($(side).value) > 0)) faults[side] = "Expected pixels.";
    for (const [field, message] of Object.entries(faults)) this.#say(field, message);
    this.#focusFault();
    return Object.keys(faults).length > 0;
  }

  async #submit() {
    this.#clear();
    if (this.#faulty() || $("create").disabled) return;
    const request = this.#request();
    const image = this.picture.file;
    $("create").disabled = true;
    $("create").textContent = "Sending …";
    try {
      const video = await this.#api.create(request, image, this.#keyFor(request, image));
      this.#tried = null;
      const files = image ? [["input_reference", image.name]] : [];
      this.#created(video, { request, files });
      this.continueClip(null);
    } catch (error) {
      this.#refused(error);
    } finally {
      $("create").disabled = false;
      $("create").textContent = "Create";
    }
  }

  // The same for another try of a request whose answer was lost: it must not become two jobs.
  #keyFor(request, image) {
    const what = stringify([request, image?.name, image?.size, image?.lastModified]);
    if (this.#tried?.what !== what) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      const key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
      this.#tried = { what, key };
    }
    return this.#tried.key;
  }

  #refused(error) {
    // An answer, whatever it says, is the end of that try.
    if (error.status) this.#tried = null;
    // Beside the field, its name need not be said.
    let message = error.message.replace(/^field '[^']*': /, "");
    if (error.retryAfter) message += ` Try again in ${error.retryAfter} s.`;
    const [start] = (error.param ?? "").split(/[.[]/);
    let field = /^loras?\b.*\bstrength$/.test(error.param ?? "") ? "strength" : FIELDS[start];
    const custom = !$("size").value && !this.#extends;
    if ((field === "width" || field === "height") && !custom) field = "size";
    if (field === "size" && custom) field = "width";
    if (field === "size" && this.#extends) field = "extend";
    if (field === "image" && this.#extends) field = "extend";
    if (field === "extend" && !this.#extends) field = "form";
    if (!field && error.param) message = `${error.param}: ${message}`;
    this.#say(field ?? "form", message);
    this.#focusFault();
  }

  #clear() {
    for (const error of $("form").querySelectorAll(".error")) this.#say(error.id.replace(/-error$/, ""), "");
  }

  #say(field, message) {
    const place = $(`${field}-error`);
    if (!place) return;
    place.textContent = message;
    place.hidden = !message;
    if (message) $(field)?.setAttribute("aria-invalid", "true");
    else $(field)?.removeAttribute("aria-invalid");
  }

  #focusFault() {
    const field = $("form").querySelector("[aria-invalid]:not(form)");
    if (!field) return;
    if ($("more").contains(field)) $("more").open = true;
    field.focus();
  }
}
