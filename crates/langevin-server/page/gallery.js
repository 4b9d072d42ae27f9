// Every result with its settings, kept in this browser.

import { gif } from "./api.js";
import { describe, showAgain } from "./drawing.js";
import { columns, download, fileName, image, png } from "./picture.js";
import { read, requestOf, setFiles } from "./settings.js";

const byId = (id) => document.getElementById(id);
const dialog = byId("shown");
let database = null;
let shown = null;
/** What is in the gallery, the newest first; also where the browser keeps nothing, as in a private window. */
let results = [];

/** A promise of what a request to the browser's database comes to. */
const settled = (request) =>
  new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });

const store = (mode) => database?.transaction("results", mode).objectStore("results");

export async function begin() {
  dialog.addEventListener("click", (event) => act(event.target.dataset.do));
  byId("clear").addEventListener("click", () => {
    if (!confirm("Remove every result from this browser?")) return;
    store("readwrite")?.clear();
    results = [];
    list();
  });
  try {
    const opening = indexedDB.open("langevin", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("results", { keyPath: "id", autoIncrement: true });
    database = await settled(opening);
    results = (await settled(store("readonly").getAll())).reverse();
  } catch {
    database = null;
  }
  list();
}

/** Puts a result into the gallery. */
export async function keep(result) {
  try {
    if (database) result.id = await settled(store("readwrite").add(result));
  } catch {
    byId("gallery-empty").textContent = "The browser's room is full: new results are kept until this page is closed.";
    byId("gallery-empty").hidden = false;
  }
  results.unshift(result);
  list();
}

function list() {
  byId("gallery").replaceChildren(...results.map(entry));
  byId("gallery-empty").hidden = results.length > 0;
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
};

function open(result) {
  shown = result;
  const { pictures, link, time } = result;
  byId("shown-pictures").style.setProperty("--columns", Math.min(columns(pictures.length), 4));
  byId("shown-pictures").replaceChildren(...pictures.map((picture) => figure(picture, result)));
  const facts = [...new URLSearchParams(link)].filter(([name]) => name in NAMES).map(([name, value]) => [NAMES[name], value]);
  facts.push(["Drawn", new Date(time).toLocaleString()]);
  byId("shown-facts").replaceChildren(...facts.flatMap(([name, value]) => [text("dt", name), text("dd", value)]));
  byId("shown-title").textContent = `${result.model}, seed ${pictures[0].seed}`;
  byId("shown-status").textContent = "";
  if (!dialog.open) dialog.showModal();
  showAgain(result);
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
  caption.append(text("span", `${picture.class ? `${picture.class} · ` : ""}${picture.seed}`), link);
  element.append(image(png(picture.png), describe(picture, size), size), caption);
  return element;
}

async function act(what) {
  if (what === "close") dialog.close();
  if (what === "reuse") {
    setFiles(shown.files);
    read(new URLSearchParams(shown.link));
    dialog.close();
    byId("generate").focus();
  }
  if (what === "remove") {
    if (shown.id !== undefined) store("readwrite")?.delete(shown.id);
    results = results.filter((result) => result !== shown);
    dialog.close();
    list();
  }
  if (what === "gif") await makeGif(shown);
}

/** The same pictures are drawn again, this time with every step kept. */
async function makeGif(result) {
  const button = dialog.querySelector("[data-do=gif]");
  const status = byId("shown-status");
  button.disabled = true;
  status.textContent = "Drawing it again, step by step…";
  try {
    const blob = await gif(requestOf(new URLSearchParams(result.link), result.files));
    const url = URL.createObjectURL(blob);
    download(fileName({ model: result.model, seed: result.pictures[0].seed }, "gif"), url);
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    status.textContent = "The GIF is in your downloads.";
  } catch (error) {
    status.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}
