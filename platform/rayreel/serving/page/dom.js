// Elements from words; text stays text, whatever is in it.

export const $ = (id) => document.getElementById(id);

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function button(text, onclick, props = {}) {
  return h("button", { type: "button", ...props, onclick }, text);
}

// Something for those who do not see the page; said once, and not for every step.
export function announce(text) {
  $("announce").textContent = text;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// A file in an element, let go of when its place is taken.
export function release(element) {
  if (element?.src?.startsWith("blob:")) URL.revokeObjectURL(element.src);
  if (element?.poster?.startsWith("blob:")) URL.revokeObjectURL(element.poster);
}

export function releaseAll(parent) {
  for (const element of parent.querySelectorAll("img, video, audio")) release(element);
}
