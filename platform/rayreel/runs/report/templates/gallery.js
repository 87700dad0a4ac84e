"use strict";
const run = JSON.parse(document.getElementById("run").textContent);
const STATUSES = ["done", "failed", "left"];
const MOST_KEPT = 60;
const total = (status) => run.counts.reduce((sum, counts) => sum + possible(counts, status), 0);

// Data files call this with their rows.
const awaited = new Map();
const kept = new Map();
window.rayreel = (kind, number, rows) => awaited.get(kind + number)(rows);

function load(kind, number) {
  const key = kind + number;
  if (!kept.has(key)) {
    const script = document.createElement("script");
    script.src = `gallery/${kind}-${String(number).padStart(4, "0")}.js`;
    kept.set(key, new Promise((resolve, reject) => {
      awaited.set(key, resolve);
      script.onerror = () => {
        kept.delete(key);
        reject(new Error(`cannot load ${script.src}`));
      };
    }));
    script.onload = () => script.remove();
    document.head.append(script);
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(key);
}

// What is wanted stands in the address, so that it can be shared.
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const text = asked.get("q") || "";
  return {
    status: STATUSES.includes(asked.get("status")) ? asked.get("status") : "",
    text,
    words: text.toLowerCase().split(/\s+/).filter(Boolean),
    page: Math.max(1, parseInt(asked.get("page"), 10) || 1),
  };
}

function address(want) {
  const said = new URLSearchParams();
  if (want.status) said.set("status", want.status);
  if (want.text) said.set("q", want.text);
  if (want.page > 1) said.set("page", want.page);
  return `#${said}`;
}

function possible(counts, status) {
  return status ? counts[STATUSES.indexOf(status)] : counts[0] + counts[1] + counts[2];
}

function matches(row, want) {
  if (want.status && row[2] !== want.status) return false;
  if (!want.words.length) return true;
  const text = `${row[0]}\n${row[1]}\n${row[3]}\n${row[6]}`.toLowerCase();
  return want.words.every((word) => text.includes(word));
}

// Clips of the wanted page, and how many there are: a filter by text reads no further than it must.
async function find(want) {
  const start = (want.page - 1) * run.page;
  const hits = [];
  let passed = 0, searched = 0;
  for (const [index, counts] of run.counts.entries()) {
    if (passed > start + run.page) break;
    const most = possible(counts, want.status);
    searched += counts[0] + counts[1] + counts[2];
    if (!want.words.length && passed + most <= start) passed += most;
    else if (most) {
      const rows = await load("index", index + 1);
      if (want !== wanted) return null;
      rows.forEach((row, at) => {
        if (!matches(row, want)) return;
        if (passed >= start && hits.length < run.page) hits.push([index * run.index + at, row]);
        passed += 1;
      });
      if (want.words.length) say(`searching: ${searched.toLocaleString()} clips so far`);
    }
  }
  const all = searched === total("");
  if (!want.words.length) return {hits, start, found: total(want.status), all: true, searched};
  return {hits, start, found: passed, all, searched};
}

function make(tag, values, ...inner) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inner);
  return made;
}

function media(row) {
  const [, prompt, , , path, kind, , width, height] = row;
  if (!path) return [];
  const source = {"data-src": path.split("/").map(encodeURIComponent).join("/")};
  const size = {width, height};
  if (kind === "video") {
    const ways = {controls: true, loop: true, playsinline: true, preload: "metadata"};
    return [make("video", {...source, ...size, ...ways})];
  }
  if (kind === "image") return [make("img", {...source, ...size, alt: prompt})];
  return [make("audio", {...source, controls: true, preload: "metadata"})];
}

function problem(stage, error, message) {
  return make("p", {class: "bad"}, make("b", {}, error), ` in ${stage}: ${message}`);
}

function card([number, row]) {
  const [names, prompt, status, pipeline, , , error] = row;
  const caption = make("figcaption", {}, make("h2", {}, names));
  if (error) caption.append(make("p", {class: "bad"}, error));
  if (status === "left") caption.append(make("p", {class: "soft"}, "not rendered yet"));
  caption.append(make("p", {class: "prompt"}, prompt));
  caption.append(make("dl", {}, make("dt", {}, "pipeline"), make("dd", {}, pipeline)));
  return make("figure", {class: status, "data-number": number}, ...media(row), caption);
}

async function complete(figure) {
  for (const player of figure.querySelectorAll("[data-src]")) player.src = player.dataset.src;
  const number = Number(figure.dataset.number);
  const clips = await load("clips", Math.floor(number / run.clips) + 1);
  const clip = clips[number % run.clips];
  const parts = [make("h2", {}, clip.names)];
  if (clip.error.length) parts.push(problem(...clip.error));
  if (figure.className === "left") parts.push(make("p", {class: "soft"}, "not rendered yet"));
  parts.push(make("p", {class: "prompt"}, clip.prompt));
  if (clip.written.length) {
    const texts = clip.written.map((text) => make("p", {}, text));
    parts.push(make("details", {}, make("summary", {}, "as it was written out"), ...texts));
  }
  const facts = clip.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  figure.querySelector("figcaption").replaceChildren(...parts, make("dl", {}, ...facts));
}

// A card loads its clip when it is about to be seen.
const seen = new IntersectionObserver((changes) => {
  for (const change of changes) {
    if (!change.isIntersecting) continue;
    seen.unobserve(change.target);
    complete(change.target).catch((error) => say(error.message));
  }
}, {rootMargin: "400px"});

const cards = document.getElementById("cards");
const box = document.getElementById("q");
let wanted = null;

function say(text) {
  for (const pager of document.querySelectorAll(".pager")) pager.replaceChildren(make("span", {}, text));
}

function pager(want, {hits, start, found, all, searched}) {
  const link = (words, page, there) =>
    make("a", {href: there && address({...want, page})}, words);
  const last = Math.max(1, Math.ceil(found / run.page));
  const count = all ? found.toLocaleString() : "more";
  const range = hits.length
    ? `${(start + 1).toLocaleString()}–${(start + hits.length).toLocaleString()} of ${count}`
    : "no clips";
  const extent = all ? "" : `, in the first ${searched.toLocaleString()} of ${total("").toLocaleString()}`;
  return [
    make("span", {}, range + extent),
    link("first", 1, want.page > 1),
    link("previous", want.page - 1, want.page > 1),
    link("next", want.page + 1, found > start + run.page),
    link("last", last, all && want.page < last),
  ];
}

async function show() {
  const want = readAddress();
  wanted = want;
  if (document.activeElement !== box) box.value = want.text;
  for (const chip of document.querySelectorAll("[data-status]")) {
    const status = chip.dataset.status;
    chip.href = address({...want, status, page: 1});
    chip.toggleAttribute("aria-current", status === want.status);
  }
  try {
    const found = await find(want);
    if (!found) return;
    seen.disconnect();
    cards.replaceChildren(...found.hits.map(card));
    for (const place of document.querySelectorAll(".pager")) place.replaceChildren(...pager(want, found));
    for (const figure of cards.children) seen.observe(figure);
  } catch (error) {
    if (want === wanted) say(error.message);
  }
}

let typing;
box.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => location.replace(address({...readAddress(), text: box.value, page: 1})), 200);
});
addEventListener("hashchange", (event) => {
  const page = (url) => new URLSearchParams(new URL(url).hash.slice(1)).get("page");
  if (page(event.oldURL) !== page(event.newURL)) scrollTo(0, 0);
  show();
});
document.getElementById("app").hidden = false;
show();
