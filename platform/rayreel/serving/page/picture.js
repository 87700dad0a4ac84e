// The start image: chosen, dropped or pasted, shown small, and taken away again.

import { $, release } from "./dom.js";

export class Picture {
  // refused(message): says what is wrong with a file, or nothing any more.
  constructor(refused) {
    this.file = null;
    this.refused = refused;
    $("image").addEventListener("change", () => this.take($("image").files));
    $("image-remove").addEventListener("click", () => {
      this.clear();
      $("image").focus();
    });
    this.#listenForDrops();
    document.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) this.take(event.clipboardData.files);
    });
  }

  clear() {
    this.file = null;
    $("image").value = "";
    release($("preview"));
    $("preview").removeAttribute("src");
    $("preview").alt = "";
    this.#show();
    this.refused("");
  }

  take(files) {
    if (!files.length || $("image-field").hidden) return;
    const [file] = files;
    if (files.length > 1 || !file.type.startsWith("image/")) {
      this.refused(
        files.length > 1
          ? `Expected one image, and got ${files.length} files.`
          : `${file.name} is no image.`,
      );
      return;
    }
    this.clear();
    this.file = file;
    $("preview").src = URL.createObjectURL(file);
    $("preview").alt = `Start image: ${file.name}`;
    $("image-name").textContent = file.name;
    this.#show();
  }

  #show() {
    $("drop").hidden = this.file !== null;
    $("image").hidden = this.file !== null;
    $("chosen").hidden = this.file === null;
  }

  #listenForDrops() {
    // On all of the page: a file that misses the field must not replace the page.
    let depth = 0;
    const files = (event) => event.dataTransfer?.types.includes("Files");
    const mark = () => document.body.classList.toggle("dropping", depth > 0);
    document.addEventListener("dragenter", (event) => {
      if (files(event)) depth += 1;
      mark();
    });
    document.addEventListener("dragleave", (event) => {
      if (files(event)) depth = Math.max(0, depth - 1);
      mark();
    });
    document.addEventListener("dragover", (event) => {
      if (files(event)) event.preventDefault();
    });
    document.addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      depth = 0;
      mark();
      this.take(event.dataTransfer.files);
    });
  }
}
