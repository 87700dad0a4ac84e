// A request as a command for a shell.

import { stringify } from "./json.js";

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// files: names of multipart parts and of files on the disk of whoever runs it.
export function curl(request, files, needsKey) {
  const parts = [`curl ${quoted(new URL("v1/videos", document.baseURI).href)}`];
  if (needsKey) parts.push(`-H "Authorization: Bearer $RAYREEL_API_KEY"`);
  const body = stringify(request);
  if (files.length) {
    // Not -F, which would look for a type and a file name in the text of the prompt.
    parts.push(`--form-string ${quoted(`request=${body}`)}`);
    for (const [part, name] of files) {
      const path = name.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
      parts.push(`-F ${quoted(`${part}=@"${path}"`)}`);
    }
  } else {
    parts.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  }
  return parts.join(" \\\n  ");
}
