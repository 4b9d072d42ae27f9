// Every result with its settings, kept in this browser.

import { gif } from "./api.js";
import { words } from "./loras.js";
import { columns, describe, download, fileName, image, isLarge, png } from "./picture.js";
import { read, requestOf, setFiles } from "./settings.js";
import { link as soundLink, player } from "./sound.js";

const byId = (id) => document.getElementById(id);
const dialog = byId("shown");
let database = null;
let shown = null;
let opened = () => {};
/** What is in the gallery, the newest first; also where the browser keeps nothing, as in a private window. */
let results = [];
/** The list item of each. */
const entries = new WeakMap();
/** Ends the GIF that is being made. */
let making = null;

/** A promise of what a request to the browser's database comes to. */
const settled = (request) =>
  new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });

const store = (mode) => database?.transaction("results", mode).objectStore("results");

/** `show` is called with a result that is opened. */
export async function begin(show) {
  opened = show;
  dialog.addEventListener("click", (event) => act(event.target.dataset.do));
  dialog.addEventListener("close", () => making?.abort());
  byId("clear").addEventListener("click", () => {
    if (!confirm("Remove every result from this browser?")) return;
    store("readwrite")?.clear();
    results = [];
    list();
    byId("gallery-title").focus();
  });
  try {
    const opening = indexedDB.open("langevin", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("results", { keyPath: "id", autoIncrement: true });
    database = await settled(opening);
    results = (await settled(store("readonly").getAll())).reverse();
  } catch {
    database = null;
    note("This browser keeps nothing for this page, as in a private window: results stay here until the page is closed.");
  }
  list();
}

function note(text) {
  byId("gallery-note").textContent = text;
  byId("gallery-note").hidden = false;
}

/** Puts a result into the gallery. */
export async function keep(result) {
  try {
    if (database) result.id = await put(result);
  } catch {
    note("The browser's room is full: new results stay here until the page is closed. Removing old ones makes room.");
  }
  results.unshift(result);
  list();
}

/** Writes a result, and gives its number once it is kept: what there is no room for fails at the very end. */
function put(result) {
  const transaction = database.transaction("results", "readwrite");
  const request = transaction.objectStore("results").add(result);
  return new Promise((done, failed) => {
    transaction.oncomplete = () => done(request.result);
    transaction.onabort = () => failed(transaction.error);
  });
}

/** Shows what there is. Entries that are there already stay, and with them the focus. */
function list() {
  for (const item of [...byId("gallery").children]) if (!results.some((result) => entries.get(result) === item)) item.remove();
  results.forEach((result, i) => {
    if (!entries.has(result)) entries.set(result, entry(result));
    const there = byId("gallery").children[i] ?? null;
    if (there !== entries.get(result)) byId("gallery").insertBefore(entries.get(result), there);
  });
  byId("gallery-empty").hidden = results.length > 0 || !byId("gallery-note").hidden;
  byId("clear").hidden = results.length === 0;
}

function entry(result) {
  const { pictures, size, link } = result;
  const item = document.createElement("li");
  const button = document.createElement("button");
  const facts = new URLSearchParams(link);
  const label = document.createElement("span");
  label.textContent = `${facts.get("prompt") ?? facts.get("class") ?? result.model} · ${pictures[0].seed}`;
  button.append(image(png(pictures[0].png), describe(pictures[0], size), size), label);
  button.type = "button";
  button.addEventListener("click", () => open(result));
  item.append(button);
  return item;
}

const NAMES = {
  model: "Model", class: "Class", prompt: "Prompt", sampler: "Sampler", steps: "Steps", seed: "Seed", count: "Pictures", eta: "η",
  guidance_scale: "Guidance scale", negative_class: "Away from", negative_prompt: "Negative prompt", colour: "Colour",
  colour_scale: "Colour strength", clip: "CLIP prompt", clip_scale: "CLIP strength", brightness: "Brightness",
  brightness_scale: "Brightness strength", symmetry_scale: "Symmetry strength", strength: "Strength",
  told_colour: "Mean colour", vector: "Vector", attributes: "Attributes", size: "Size", prompt_2: "Second prompt", negative_prompt_2: "Second negative prompt",
  clip_skip: "Layers left out", prompt_syntax: "Written as in", image_guidance_scale: "Closeness to the picture", noise_level: "Noise on the picture", mask_crop: "Around the mask",
  control: "ControlNet", control_preprocess: "Shown to it", control_scale: "ControlNet's strength", control_end: "ControlNet's end",
  guess_mode: "Led without the prompt", ip_adapter: "IP-Adapter", ip_adapter_scale: "IP-Adapter's strength", loras: "LoRA",
};

function open(result) {
  shown = result;
  const { pictures, link, time } = result;
  const large = isLarge(result.size);
  dialog.classList.toggle("large", large);
  byId("shown-pictures").style.setProperty("--columns", Math.min(columns(pictures.length), large ? 2 : 4));
  byId("shown-pictures").replaceChildren(...pictures.map((picture) => figure(picture, result)));
  const facts = [...new URLSearchParams(link)].filter(([name]) => name in NAMES).map(([name, value]) => [NAMES[name], name === "loras" ? words(value) : value]);
  if (result.files?.mask) facts.push(["Painted", "in a part of a picture"]);
  else if (result.files?.init_image) facts.push(["Begun", "with a picture"]);
  facts.push(["Drawn", new Date(time).toLocaleString()]);
  byId("shown-facts").replaceChildren(...facts.flatMap(([name, value]) => [text("dt", name), text("dd", value)]));
  byId("shown-title").textContent = `${result.model}, seed ${pictures[0].seed}`;
  byId("shown-status").textContent = "";
  if (!dialog.open) dialog.showModal();
  opened(result);
}

function text(tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  return element;
}

function figure(picture, { model, size }) {
  const element = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const link = text("a", "PNG");
  link.href = png(picture.png);
  link.download = fileName({ model, seed: picture.seed });
  link.setAttribute("aria-label", `Download the picture of seed ${picture.seed} as PNG`);
  const flag = picture.flagged ? " · flagged by the safety checker" : "";
  caption.append(text("span", `${picture.class ? `${picture.class} · ` : ""}${picture.seed}${flag}`), link);
  element.append(image(png(picture.png), describe(picture, size), size), caption);
  if (picture.wav) {
    element.append(player(picture.wav, `The sound of seed ${picture.seed}`));
    caption.append(" ", soundLink(picture.wav, fileName({ model, seed: picture.seed }, "wav")));
  }
  return element;
}

async function act(what) {
  if (what === "close") dialog.close();
  if (what === "reuse") {
    setFiles(shown.files);
    dialog.close();
    await read(new URLSearchParams(shown.link));
    byId("generate").focus();
  }
  if (what === "remove") {
    if (shown.id !== undefined) store("readwrite")?.delete(shown.id);
    const place = results.indexOf(shown);
    results = results.filter((result) => result !== shown);
    dialog.close();
    list();
    const next = results[Math.min(place, results.length - 1)];
    (next ? entries.get(next).querySelector("button") : byId("gallery-title")).focus();
  }
  if (what === "gif") await makeGif(shown);
}

/** The same pictures are drawn again, this time with every step kept. Closing the dialog stops it. */
async function makeGif(result) {
  if (making) return;
  making = new AbortController();
  const button = dialog.querySelector("[data-do=gif]");
  const status = byId("shown-status");
  button.setAttribute("aria-disabled", true);
  status.textContent = "Drawing it again, step by step… Close this to stop.";
  try {
    const blob = await gif(requestOf(new URLSearchParams(result.link), result.files), making.signal);
    const url = URL.createObjectURL(blob);
    download(fileName({ model: result.model, seed: result.pictures[0].seed }, "gif"), url);
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    status.textContent = "The GIF is in your downloads.";
  } catch (error) {
    status.textContent = error.name === "AbortError" ? "" : error.message;
  } finally {
    making = null;
    button.setAttribute("aria-disabled", false);
  }
}
