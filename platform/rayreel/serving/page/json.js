// JSON whose whole numbers stay exact: seeds have up to 63 bits, numbers of JavaScript 53.

export function parse(text) {
  return JSON.parse(text, (_key, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && context && JSON.rawJSON
      ? JSON.rawJSON(context.source)
      : value,
  );
}

export function stringify(value) {
  return JSON.stringify(value);
}

// A whole number as it is written, from what parse made of it.
export function digits(value) {
  return String(value?.rawJSON ?? value);
}

// And back: digits, exact where the browser can.
export function whole(text) {
  const value = Number(text);
  return Number.isSafeInteger(value) || !JSON.rawJSON ? value : JSON.rawJSON(String(BigInt(text)));
}
