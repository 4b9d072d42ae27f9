// The settings that a PNG carries: of this program's pictures and of A1111's.

import { call } from "./api.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** Chunks that are sent: what the picture is, and what is said of it. */
const SENT = ["IHDR", "tEXt", "zTXt", "iTXt"];
/** An IDAT with nothing in it, and the end: the pixels stay here. */
const END = [0, 0, 0, 0, 73, 68, 65, 84, 0x35, 0xaf, 0x06, 0x1e, 0, 0, 0, 0, 73, 69, 78, 68, 0xae, 0x42, 0x60, 0x82];
/** The longest file that is looked through. */
const LONGEST = 256 * 1024 * 1024;

/** A PNG without its pixels; an error with a sentence for what is none. */
export async function texts(file) {
  if (file.size > LONGEST) throw new Error(`“${file.name}” is too large to look for settings in.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) {
    throw new Error(`“${file.name}” is no PNG: settings are in PNG files, and are lost where a picture is saved as another kind.`);
  }
  const view = new DataView(bytes.buffer);
  const parts = [bytes.subarray(0, SIGNATURE.length)];
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; ) {
    const end = at + 12 + view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (end > bytes.length) break;
    if (SENT.includes(kind)) parts.push(bytes.subarray(at, end));
    at = end;
  }
  return new Blob([...parts, new Uint8Array(END)], { type: "image/png" });
}

/** What the server reads in it. */
export async function settingsOf(file) {
  const body = await texts(file);
  return (await call("/api/settings", { method: "POST", body, headers: { "Content-Type": "image/png" } })).json();
}

/** `take` is called with a file that is chosen or dropped on the place beside the form. */
export function begin(take) {
  const input = document.getElementById("settings-of");
  const place = document.getElementById("stage");
  const png = (data) => [...(data?.items ?? [])].find(({ kind, type }) => kind === "file" && (type === "" || type.startsWith("image/")));
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) take(file);
    input.value = "";
  });
  place.addEventListener("dragover", (event) => {
    if (!png(event.dataTransfer)) return;
    event.preventDefault();
    place.classList.add("dropping");
  });
  place.addEventListener("dragleave", (event) => {
    if (!place.contains(event.relatedTarget)) place.classList.remove("dropping");
  });
  place.addEventListener("drop", (event) => {
    place.classList.remove("dropping");
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.preventDefault();
    take(file);
  });
}
