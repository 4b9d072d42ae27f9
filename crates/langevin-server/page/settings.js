// The form, the request that it stands for, and the link that brings it back.

import { getJson } from "./api.js";

const form = document.getElementById("settings");
const field = (name) => form.elements[name];
/** Whether this model has no use for a control; the whole form may be out of sight for another reason. */
const isHidden = (input) => input.closest("#settings [hidden]") !== null;
/** What a link carries: every control but files. */
const NAMES = [
  "model", "class", "prompt", "sampler", "steps", "seed", "count", "eta", "guidance_scale", "negative_class", "negative_prompt",
  "colour_on", "colour", "colour_scale", "clip", "clip_scale", "brightness_on", "brightness", "brightness_scale",
  "symmetry_on", "symmetry_scale", "strength",
];

export let server = { models: [], limits: {} };
/** Pictures that were chosen, as data: URLs. */
export const files = { init_image: null, conditioning_image: null };
let changed = () => {};

/** Reads the models and the link; `onChange` is called after every change. */
export async function begin(onChange) {
  server = await getJson("/api/models");
  fill(field("model"), server.models.map(({ name }) => [name, name]));
  field("steps").max = server.limits.steps;
  field("count").max = server.limits.count;
  field("model").addEventListener("change", () => fit());
  field("sampler").addEventListener("change", () => setSampler());
  form.addEventListener("input", () => refresh());
  document.getElementById("dice").addEventListener("click", () => {
    field("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
    refresh();
  });
  for (const name of Object.keys(files)) field(name).addEventListener("change", (event) => take(name, event.target.files[0]));
  document.querySelector("#init-shown button").addEventListener("click", () => take("init_image", null));
  changed = onChange;
  read(new URLSearchParams(location.hash.slice(1)));
  addEventListener("hashchange", () => {
    const link = new URLSearchParams(location.hash.slice(1));
    if (link.toString() !== write().toString()) read(link);
  });
}

export const model = () => server.models.find(({ name }) => name === field("model").value) ?? server.models[0];
const sampler = () => model().samplers.find(({ name }) => name === field("sampler").value);

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
}

/** Fits the form to the model: what it cannot do is not shown. */
function fit() {
  const { classes, null_class, prompt, guides, conditioning_image, samplers, sampler: own } = model();
  const old = field("sampler").value;
  fill(field("sampler"), samplers.map(({ name }) => [name, name]));
  field("sampler").value = samplers.some(({ name }) => name === old) ? old : own;
  const names = (classes ?? []).map((name) => [name, name]);
  const none = null_class ? [["none", "None: the model chooses"]] : [];
  fill(field("class"), [["", "All in turn"], ...names, ...none]);
  fill(field("negative_class"), [["", null_class ? "No class in particular" : "Choose one"], ...names]);
  const needs = {
    classes: classes !== null, prompt, told: classes !== null || prompt, conditioning_image: conditioning_image !== null,
    ...Object.fromEntries(["colour", "clip", "brightness", "symmetry"].map((guide) => [`guide-${guide}`, guides.includes(guide)])),
  };
  for (const element of form.querySelectorAll("[data-needs]")) {
    if (element.dataset.needs in needs) element.hidden = !needs[element.dataset.needs];
  }
  const { height, width, channels, parameters } = model();
  document.getElementById("about-model").textContent =
    `${width}×${height}, ${channels === 3 ? "in colour" : "in greys"}, ${parameters.toLocaleString("en")} parameters`;
  document.getElementById("about-shown").textContent = conditioning_image ? `This model is shown a picture (${conditioning_image}).` : "";
  setSampler();
}

function setSampler() {
  const { about, steps, eta } = sampler() ?? {};
  document.getElementById("about-sampler").textContent = about ?? "";
  field("steps").value = Math.min(steps ?? 50, 100, server.limits.steps);
  const element = form.querySelector("[data-needs=eta]");
  element.hidden = !eta;
  field("eta").value = field("sampler").value === "tcd" ? 0.3 : 0;
  refresh();
}

function refresh() {
  for (const range of form.querySelectorAll(".range")) {
    range.querySelector("output").textContent = range.querySelector("input").value;
  }
  for (const input of form.querySelectorAll("input")) {
    input.toggleAttribute("aria-invalid", false);
    if (!input.checkValidity()) input.setAttribute("aria-invalid", "true");
  }
  history.replaceState(null, "", `#${write()}`);
  changed();
}

/** The settings as a link has them: what differs from nothing. */
export function write() {
  const link = new URLSearchParams();
  for (const name of NAMES) {
    const input = field(name);
    if (isHidden(input)) continue;
    const value = input.type === "checkbox" ? (input.checked ? "1" : "") : input.value;
    if (value !== "") link.set(name, value);
  }
  for (const guide of ["colour", "brightness", "symmetry"]) {
    if (!field(`${guide}_on`).checked) [guide, `${guide}_scale`].forEach((name) => link.delete(name));
  }
  if (!field("clip").value) link.delete("clip_scale");
  if (!files.init_image) link.delete("strength");
  if (link.get("guidance_scale") === "1") link.delete("guidance_scale");
  if (link.get("eta") === "0") link.delete("eta");
  const tab = document.querySelector("[role=tab][aria-selected=true]").id.slice(4);
  if (tab !== "draw") link.set("tab", tab);
  return link;
}

/** Puts the settings of a link into the form. */
export function read(link) {
  const named = link.get("model");
  field("model").value = server.models.some(({ name }) => name === named) ? named : server.models[0].name;
  for (const name of ["clip", "prompt", "negative_prompt"]) field(name).value = "";
  for (const name of ["colour_on", "brightness_on", "symmetry_on"]) field(name).checked = false;
  field("guidance_scale").value = 1;
  field("seed").value = link.get("seed") ?? crypto.getRandomValues(new Uint32Array(1))[0] % 10000;
  field("count").value = link.get("count") ?? Math.min(4, server.limits.count);
  fit();
  if (link.get("sampler")) {
    field("sampler").value = link.get("sampler");
    if (!sampler()) field("sampler").value = model().sampler;
    setSampler();
  }
  for (const name of NAMES.filter((name) => name !== "model" && name !== "sampler" && link.has(name))) {
    const input = field(name);
    if (input.type === "checkbox") input.checked = link.get(name) === "1";
    else input.value = link.get(name);
    // A choice that this model does not have leaves the select without one.
    if (input.tagName === "SELECT" && input.selectedIndex < 0) input.value = "";
    if (["colour_on", "brightness_on", "symmetry_on", "clip"].includes(name)) input.closest("details").open = true;
    if (name === "guidance_scale") input.closest("details").open = true;
  }
  refresh();
}

/** The form as the body of a request; `null` where something in it cannot be, which then has the focus. */
export function request() {
  const wrong = [...form.elements].find((input) => !isHidden(input) && !input.checkValidity());
  if (wrong) {
    wrong.closest("details")?.setAttribute("open", "");
    wrong.focus();
    wrong.reportValidity();
    return null;
  }
  return requestOf(write(), files);
}

/** The request that a link stands for. */
export function requestOf(link, pictures = {}) {
  const text = (name) => link.get(name) || undefined;
  const number = (name) => (link.get(name) ? Number(link.get(name)) : undefined);
  const guide = [];
  const scaled = (name, value) => guide.push(`${value}@${link.get(`${name}_scale`) ?? 1}`);
  if (link.get("colour_on")) scaled("colour", `colour:${link.get("colour")}`);
  if (link.get("brightness_on")) scaled("brightness", `brightness:${link.get("brightness")}`);
  if (link.get("symmetry_on")) scaled("symmetry", "symmetry");
  if (link.get("clip")) scaled("clip", `clip:${link.get("clip")}`);
  const request = {
    model: text("model"), sampler: text("sampler"), steps: number("steps"), count: number("count"), seed: number("seed") ?? 0,
    class: text("class"), prompt: text("prompt"), eta: number("eta"), guidance_scale: number("guidance_scale"), guide,
    init_image: pictures.init_image ?? undefined, strength: pictures.init_image ? number("strength") : undefined,
    conditioning_image: pictures.conditioning_image ?? undefined,
  };
  // Without guidance there is nothing to lead away from.
  if (request.guidance_scale) Object.assign(request, { negative_class: text("negative_class"), negative_prompt: text("negative_prompt") });
  return request;
}

/** Takes a picture from a file, or takes it away. */
async function take(name, file) {
  files[name] = file ? await dataUrl(file) : null;
  if (!file) field(name).value = "";
  if (name === "init_image") {
    const shown = document.getElementById("init-shown");
    shown.hidden = !file;
    if (file) shown.querySelector("img").src = files[name];
  }
  refresh();
}

/** Puts pictures that were sent before back into their places. */
export function setFiles(old) {
  Object.assign(files, old);
  const shown = document.getElementById("init-shown");
  shown.hidden = !files.init_image;
  if (files.init_image) {
    shown.querySelector("img").src = files.init_image;
    shown.closest("details").open = true;
  }
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
