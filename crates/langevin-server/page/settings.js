// The form, the request that it stands for, and the link that brings it back.

import { getJson } from "./api.js";
import * as attributes from "./attributes.js";
import * as loras from "./loras.js";
import { covered, paint, shade } from "./mask.js";
import * as options from "./options.js";
import * as size from "./size.js";

const form = document.getElementById("settings");
const field = (name) => form.elements[name];
/** Whether this model has no use for a control; the whole form may be out of sight for another reason. */
const isHidden = (input) => input.closest("#settings [hidden]") !== null;
/** The noise in each step that a sampler has of itself, where it has a choice. */
const USUAL_ETA = { ddim: 0, tcd: 0.3 };
/** The longest side of a picture that is sent: models are smaller by far, and photos larger than a request may be. */
const SIDE = 1024;
/** Kinds of files that the server reads as they are. */
const READ = ["image/png", "image/jpeg", "image/webp", "image/gif"];
/** What belongs to the picture that is followed. */
const CONTROL = ["control", "control_preprocess", "control_scale", "control_end", "guess_mode"];
/** What belongs to the picture that is drawn like. */
const LIKE = ["ip_adapter", "ip_adapter_scale"];
/** What a link carries: every control but files; those of other options come to it. */
const NAMES = [
  "model", "class", "prompt", "sampler", "steps", "seed", "count", "eta", "guidance_scale", "negative_class", "negative_prompt",
  "colour_on", "colour", "colour_scale", "clip", "clip_scale", "brightness_on", "brightness", "brightness_scale",
  "symmetry_on", "symmetry_scale", "strength", "told_on", "told_colour", "vector", "attributes", "size", "prompt_2", "negative_prompt_2", "clip_skip", "prompt_syntax",
  "image_guidance_scale", "noise_level", "paint", "mask_crop", "loras", ...CONTROL, ...LIKE,
];
/** Where pictures are chosen. */
const CHOSEN = ["init_image", "conditioning_image", "control_image", "prompt_image"];

export let server = { models: [], limits: {} };
/** Pictures that were chosen, and the mask of the one that is painted in, as data: URLs. */
export const files = { init_image: null, conditioning_image: null, control_image: null, prompt_image: null, mask: null };
let changed = () => {};
/** The model that the form was last made for. */
let fitted = null;
/** What the form was last filled with where nobody said: what still stands as it was follows the model. */
let filled = {};

/** Reads the models and the link; `onChange` is called after every change. */
export async function begin(onChange) {
  server = await getJson("/api/models");
  await options.begin();
  NAMES.push(...options.names().filter((name) => !NAMES.includes(name)));
  for (const name of options.pictures()) if (!CHOSEN.includes(name)) CHOSEN.push(name);
  fill(field("model"), server.models.map(({ name }) => [name, name]));
  field("steps").max = server.limits.steps;
  field("count").max = server.limits.count;
  field("mask_crop").max = server.limits.side;
  for (const name of ["prompt", "negative_prompt", "prompt_2", "negative_prompt_2"]) field(name).maxLength = server.limits.text;
  field("model").addEventListener("change", () => choose());
  field("sampler").addEventListener("change", () => setSampler());
  for (const name of ["prompt", "negative_prompt"]) {
    field(name).addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
  size.begin(refresh);
  attributes.begin(refresh);
  loras.begin(() => {
    warn([]);
    refresh();
  });
  field("paint").addEventListener("change", () => setUse());
  document.getElementById("paint-mask").addEventListener("click", async () => {
    setMask(await paint(files.init_image, files.mask));
    refresh();
  });
  form.addEventListener("input", () => {
    warn([]);
    refresh();
  });
  document.getElementById("dice").addEventListener("click", () => {
    warn([]);
    field("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
    refresh();
  });
  takeDropped();
  for (const name of CHOSEN) {
    field(name).addEventListener("change", (event) => take(name, event.target.files[0]));
    chosen(name).querySelector("button").addEventListener("click", () => {
      take(name, null);
      field(name).focus();
    });
  }
  changed = onChange;
  await read(new URLSearchParams(location.hash.slice(1)));
  addEventListener("hashchange", () => {
    const link = new URLSearchParams(location.hash.slice(1));
    // A place on the page, not settings.
    if (![...link.keys()].some((name) => NAMES.includes(name))) return history.replaceState(null, "", `#${write()}`);
    if (link.toString() === write().toString()) return;
    setFiles({});
    read(link);
  });
}

const chosen = (name) => document.querySelector(`.chosen[data-of=${name}]`);
const about = (name) => document.getElementById(`about-${name}`);

/** Says what a link could not bring, until the next change. */
function warn(sentences) {
  const alert = document.getElementById("alert");
  alert.textContent = sentences.join(" ");
  alert.hidden = sentences.length === 0;
}

/** Whether the server has said what a model is: it does so once the model was loaded. */
const isKnown = ({ samplers }) => samplers !== undefined;

export const model = () => {
  const known = server.models.filter(isKnown);
  return known.find(({ name }) => name === field("model").value) ?? known[0] ?? server.models[0];
};

/** Has the server load a model that nobody has used yet, and takes what it is. */
async function learn(name) {
  const place = server.models.findIndex((one) => one.name === name);
  if (place < 0 || isKnown(server.models[place])) return;
  document.getElementById("about-model").textContent = "Loading this model…";
  server.models[place] = await getJson(`/api/models/${encodeURIComponent(name)}`);
}

/** Takes the model that was chosen; where it cannot be had, the one before stays. */
async function choose() {
  const name = field("model").value;
  const before = fitted;
  warn([]);
  try {
    await learn(name);
  } catch (error) {
    warn([error.message]);
    if (field("model").value === name) field("model").value = before ?? model().name;
  }
  if (field("model").value === name || model().name === before) fit();
}

const sampler = () => model().samplers.find(({ name }) => name === field("sampler").value);

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
}

/** Fits the form to the model: what it cannot do is not shown. */
function fit() {
  fitted = model().name;
  const { classes, null_class, prompt, guides, conditioning_image, vector, samplers, sampler: own, latent, init_image } = model();
  const old = field("sampler").value;
  fill(field("sampler"), samplers.map(({ name }) => [name, name]));
  // What a model of latents was made for is seldom what another was.
  field("sampler").value = !latent && samplers.some(({ name }) => name === old) ? old : own;
  const names = (classes ?? []).map((name) => [name, name]);
  const none = null_class ? [["none", "None: the model chooses"]] : [];
  fill(field("class"), [["", "All in turn"], ...names, ...none]);
  fill(field("control"), model().controls.map((name) => [name, name]));
  fill(field("ip_adapter"), model().ip_adapters.map((name) => [name, name]));
  fill(field("negative_class"), [["", null_class ? "No class in particular" : "Choose one"], ...names]);
  const needs = {
    classes: classes !== null, prompt, told: classes !== null || prompt || vector !== null || model().attributes !== null, "told-colour": isColour(vector),
    vector: vector !== null && !isColour(vector), conditioning_image: conditioning_image !== null,
    attributes: model().attributes !== null, negative_prompt: model().negative_prompt, prompt_2: model().prompt_2, texts: latent && prompt, size: latent && init_image !== "upscale",
    edit: init_image === "edit", upscale: init_image === "upscale", picture: init_image !== null || canPaint(model()),
    paint: init_image !== null && canPaint(model()), control: model().controls.length > 0, loras: model().loras.length > 0, image_prompts: model().ip_adapters.length > 0,
    enlarge: latent && init_image === "start", sizes: model().sizes, scores: model().scores, parts: model().sizes, depth: model().depth, vector_of: Boolean(vector?.of),
    sound: Boolean(model().sound), encoding: Boolean(model().sound && model().class_name === "UNet2DConditionModel"),
    guidance: latent || classes !== null || prompt || vector !== null,
    ...Object.fromEntries(["colour", "clip", "brightness", "symmetry"].map((guide) => [`guide-${guide}`, guides.includes(guide)])),
  };
  for (const element of form.querySelectorAll("[data-needs]")) {
    if (element.dataset.needs in needs) element.hidden = !needs[element.dataset.needs];
  }
  const { height, width, channels, parameters, pipeline, safety_checker } = model();
  document.getElementById("about-model").textContent =
    `${width}×${height}, ${channels === 3 ? "in colour" : "in greys"}, ${parameters.toLocaleString("en")} parameters` +
    `${latent ? `, ${pipeline}` : ""}${safety_checker ? ", with a safety checker" : ""}`;
  const { sound } = model();
  document.getElementById("about-sound").textContent = sound
    ? `This model draws sounds of ${sound.seconds.toFixed(2)} s at ${sound.sample_rate.toLocaleString("en")} Hz; a picture is a sound’s spectrogram, low at the bottom.`
    : "";
  document.getElementById("about-guidance").textContent = latent
    ? "1 leaves the model alone; what to lead away from counts above 1."
    : "1 leaves the model alone; 3 is much. What to lead away from counts above 1.";
  Object.assign(field("guidance_scale"), latent ? { max: 20, step: 0.5 } : { max: 12, step: 0.25 });
  document.getElementById("title-init").textContent = BEGINNINGS[init_image] ?? "Paint in a picture";
  if (latent) document.getElementById("details-init").open ||= model().needs_picture;
  size.fit(model(), server.limits.size);
  attributes.fit(model().attributes);
  loras.fit(model().loras);
  document.getElementById("about-shown").textContent = conditioning_image ? `This model is shown a picture (${conditioning_image}).` : "";
  if (vector) {
    const one = "-?[0-9]*[.]?[0-9]+";
    field("vector").pattern = `\\s*${one}(\\s*,\\s*${one}){${vector.numbers - 1}}\\s*`;
    field("vector").title = `${vector.numbers} numbers, with commas between`;
    document.getElementById("about-vector").textContent =
      `${vector.numbers === 1 ? "A number" : `${vector.numbers} numbers with commas between`}` +
      `${vector.of === "colour" ? ": the picture's mean, from -1 (black) to 1 (white)" : ""}. Empty tells the model nothing.`;
  }
  filled = {};
  setSampler();
}

/** What is done with the picture that a model begins with. */
const BEGINNINGS = {
  start: "Begin with a picture", depth: "Begin with a picture and its depths", edit: "The picture to edit",
  variation: "The picture to vary", upscale: "The picture to enlarge",
};

/** Whether a part of a picture can be painted with a model, on this page. */
const canPaint = ({ latent, inpaint }) => latent && inpaint;

/** Whether a model is to paint in a part of a picture: it does nothing else, or was asked to. */
const paintsBy = (model, asked) => canPaint(model) && (model.init_image === null || asked);

/** What the form stands for: drawing from noise, from a picture, or in a part of one. */
function use() {
  const { init_image, needs_picture } = model();
  if (paintsBy(model(), field("paint").checked && files.init_image !== null)) return "inpaint";
  return files.init_image || (needs_picture && init_image) ? "picture" : "draw";
}

/** Shows what the picture's use needs, and fills in what nobody has chosen. */
function setUse() {
  const how = use();
  const isThere = files.init_image !== null;
  document.getElementById("painting").hidden = how !== "inpaint" || !isThere;
  for (const element of form.querySelectorAll("[data-needs=strength]")) {
    element.hidden = how !== "inpaint" && !["start", "depth"].includes(model().init_image);
  }
  shade(document.getElementById("mask-shown"), how === "inpaint" ? files.mask : null);
  const usual = model().usual?.[how];
  const steps = usual?.steps ?? Math.min(sampler()?.steps ?? 50, 100);
  const wanted = {
    steps: Math.min(steps, server.limits.steps), guidance_scale: usual?.guidance_scale ?? 1, strength: usual?.strength ?? 0.6,
  };
  for (const [name, value] of Object.entries(wanted)) {
    const input = field(name);
    if (filled[name] === undefined || filled[name] === input.value) {
      input.value = value;
      filled[name] = input.value;
    }
  }
  refresh();
}

/** Whether a model is told a colour that can be picked. */
const isColour = (vector) => vector?.of === "colour" && vector.numbers === 3;

function setSampler() {
  const { about, eta } = sampler() ?? {};
  document.getElementById("about-sampler").textContent = about ?? "";
  // Each sampler of pictures has steps of its own.
  if (!model().latent) delete filled.steps;
  form.querySelector("[data-needs=eta]").hidden = !eta;
  for (const element of form.querySelectorAll("[data-needs=teacher]")) element.hidden = !["lcm", "tcd"].includes(field("sampler").value);
  field("eta").value = USUAL_ETA[field("sampler").value] ?? 0;
  setUse();
}

function refresh() {
  for (const range of form.querySelectorAll(".range")) {
    range.querySelector(".value").textContent = range.querySelector("input").value;
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
  if (!field("told_on").checked) link.delete("told_colour");
  if (!files.init_image) ["strength", "paint", "mask_crop"].forEach((name) => link.delete(name));
  if (!files.control_image) CONTROL.forEach((name) => link.delete(name));
  if (!files.prompt_image) LIKE.forEach((name) => link.delete(name));
  if (link.get("guidance_scale") === "1" && !model().latent) link.delete("guidance_scale");
  if (Number(link.get("eta")) === USUAL_ETA[link.get("sampler")]) link.delete("eta");
  const tab = document.querySelector("[role=tab][aria-selected=true]").id.slice(4);
  if (tab !== "draw") link.set("tab", tab);
  return link;
}

/** What is shown where a link has it. */
const opening = () => ["colour_on", "brightness_on", "symmetry_on", "clip", "prompt_2", "negative_prompt_2", "clip_skip", "prompt_syntax", "loras", ...options.names()];

/** Puts the settings of a link into the form, and says what of them is not to be had here, behind what is `said` already. */
export async function read(link, said = []) {
  const missing = [...said];
  const named = link.get("model");
  form.reset();
  const isThere = server.models.some(({ name }) => name === named);
  const chosen = isThere ? named : server.models[0].name;
  field("model").value = chosen;
  try {
    await learn(chosen);
  } catch (error) {
    // Another one does, if there is one.
    if (!server.models.some(isKnown)) throw error;
    missing.push(error.message);
    field("model").value = model().name;
  }
  if (named && !isThere) missing.push(`This server has no model “${named}”: “${model().name}” is chosen instead.`);
  field("seed").value = link.get("seed") ?? crypto.getRandomValues(new Uint32Array(1))[0] % 10000;
  field("count").value = link.get("count") ?? Math.min(model().latent ? 1 : 4, server.limits.count);
  field("sampler").replaceChildren();
  fit();
  if (link.get("sampler")) {
    field("sampler").value = link.get("sampler");
    if (!sampler()) {
      field("sampler").value = model().sampler;
      missing.push(`There is no sampler “${link.get("sampler")}” for this model: “${model().sampler}” is chosen instead.`);
    }
    setSampler();
  }
  for (const name of NAMES.filter((name) => name !== "model" && name !== "sampler" && link.has(name))) {
    const input = field(name);
    if (input.type === "checkbox") input.checked = link.get(name) === "1";
    else input.value = link.get(name);
    // A choice that this model does not have leaves the select without one.
    if (input.tagName === "SELECT" && input.selectedIndex < 0) {
      input.value = "";
      if (name === "control") {
        input.selectedIndex = 0;
        missing.push(`This server has no ControlNet “${link.get(name)}” for this model.`);
      } else if (name === "ip_adapter") {
        input.selectedIndex = 0;
        missing.push(`This server has no IP-Adapter “${link.get(name)}” for this model.`);
      } else if (link.get(name)) {
        missing.push(`This model has no class “${link.get(name)}”: that choice is left open.`);
      }
    }
    if (opening().includes(name)) input.closest("details").open = true;
  }
  if (link.has("size")) size.set(link.get("size"));
  if (link.has("attributes")) {
    const unknown = attributes.set(link.get("attributes"));
    if (unknown.length > 0) missing.push(`This model has no attribute “${unknown.join("”, “")}”.`);
  }
  const unknown = loras.set(link.get("loras"));
  if (unknown.length > 0) missing.push(`This server has no LoRA “${unknown.join("”, “")}” for this model.`);
  if ((link.has("strength") || link.has("paint")) && !files.init_image) {
    field("strength").closest("details").open = true;
    missing.push(`The picture that this drawing began with is not in the link: choose it under “${document.getElementById("title-init").textContent}”.`);
  }
  if (link.has("control") && !files.control_image && model().controls.length > 0) {
    field("control").closest("details").open = true;
    missing.push("The picture that this drawing followed is not in the link: choose it under “Follow a picture”.");
  }
  if (link.has("ip_adapter") && !files.prompt_image && model().ip_adapters.length > 0) {
    field("ip_adapter").closest("details").open = true;
    missing.push("The picture that this drawing was to be like is not in the link: choose it under “Draw like a picture”.");
  }
  setUse();
  warn(missing);
}

/** What is wrong with a control, in words; nothing where it can be as it is. */
export function problem(name) {
  const input = field(name);
  return input.checkValidity() ? "" : `${input.closest("label").firstChild.textContent.trim()}: ${input.validationMessage}`;
}

/** What the schedule depends on. */
export const scheduled = () => ({ model: field("model").value, sampler: field("sampler").value, steps: field("steps").value });

/** What the tokens of a text depend on; `null` where the model is not given it. */
export const texted = (name) => (isHidden(field(name)) || isHidden(field("clip_skip")) ? null
  : { model: field("model").value, text: field(name).value, syntax: field("prompt_syntax").value });

/** The form as the body of a request; `null` where something in it cannot be, which then has the focus. */
export function request() {
  const wrong = [...form.elements].find((input) => !isHidden(input) && !input.checkValidity());
  if (wrong) {
    wrong.closest("details")?.setAttribute("open", "");
    wrong.focus();
    wrong.reportValidity();
    return null;
  }
  const lacking = lacks();
  if (lacking) {
    const [sentence, control] = lacking;
    document.getElementById("details-init").open = true;
    warn([sentence]);
    document.getElementById("alert").scrollIntoView({ block: "nearest" });
    control.focus();
    return null;
  }
  return requestOf(write(), files);
}

/** What a request would be refused for, with the control that mends it. */
function lacks() {
  if (model().needs_picture && !files.init_image) return ["This model begins with a picture: choose one.", field("init_image")];
  if (use() === "inpaint" && !files.mask) return ["Paint over what of the picture is to be drawn anew.", document.getElementById("paint-mask")];
  return null;
}

/** The pictures of a request. */
export const sent = ({ init_image, inpaint, mask, conditioning_image, control, ip_adapter, ...others }) => ({
  init_image: init_image ?? inpaint ?? null, mask: mask ?? null, conditioning_image: conditioning_image ?? null,
  control_image: control?.picture ?? null, prompt_image: ip_adapter?.picture ?? null,
  ...Object.fromEntries(options.pictures().map((name) => [name, others[name] ?? null])),
});

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
  const described = server.models.find(({ name }) => name === link.get("model")) ?? server.models[0];
  // A picture that was chosen for another model.
  const looks = described.conditioning_image ? true : undefined;
  const isPainted = paintsBy(described, link.get("paint") !== null) && Boolean(pictures.init_image && pictures.mask);
  const begun = (isPainted || described.init_image ? pictures.init_image : null) ?? undefined;
  const usual = described.usual?.[isPainted ? "inpaint" : "picture"].strength;
  const strength = begun && number("strength");
  const request = {
    model: text("model"), sampler: text("sampler"), steps: number("steps"), count: number("count"), seed: number("seed") ?? 0,
    class: text("class"), attributes: text("attributes"), prompt: text("prompt"), prompt_2: text("prompt_2"), eta: number("eta") ?? USUAL_ETA[link.get("sampler")],
    guidance_scale: number("guidance_scale"), guide, vector: told(link), size: text("size"), clip_skip: number("clip_skip"), prompt_syntax: text("prompt_syntax"),
    init_image: isPainted ? undefined : begun, inpaint: isPainted ? begun : undefined, mask: isPainted ? pictures.mask : undefined,
    mask_crop: isPainted ? number("mask_crop") : undefined, image_guidance_scale: number("image_guidance_scale"),
    // A slider has no room for 0.9999, which is near enough to it.
    noise_level: number("noise_level"), strength: usual && Math.abs(usual - strength) < 0.001 ? undefined : strength,
    conditioning_image: (looks && pictures.conditioning_image) ?? undefined,
    loras: link.get("loras") ? loras.values(link.get("loras")) : undefined,
    ...options.values(link), ...options.chosen(pictures, described),
  };
  if (link.get("control") && pictures.control_image) {
    const picture = pictures.control_image;
    Object.assign(request, {
      control: { model: text("control"), picture, scale: number("control_scale"), end: number("control_end") },
      control_preprocess: text("control_preprocess"), guess_mode: link.get("guess_mode") ? true : undefined,
    });
  }
  if (link.get("ip_adapter") && pictures.prompt_image) {
    request.ip_adapter = { model: text("ip_adapter"), picture: pictures.prompt_image, scale: number("ip_adapter_scale") };
  }
  // They take the place of a number of steps.
  if (request.timesteps) delete request.steps;
  // Without guidance there is nothing to lead away from.
  if ((request.guidance_scale ?? 1) > 1) {
    Object.assign(request, { negative_class: text("negative_class"), negative_prompt: text("negative_prompt"), negative_prompt_2: text("negative_prompt_2") });
  }
  return request;
}

/** The link that a request stands for, as the server reads it in a picture's file: without pictures. */
export function linkOf({ request, model: named }) {
  const link = new URLSearchParams();
  const first = (value) => (Array.isArray(value) ? value[0] : value);
  const set = (name, value) => {
    if (value !== undefined && value !== null && value !== "") link.set(name, value === true ? "1" : String(value));
  };
  set("model", named);
  set("sampler", request.scheduler);
  set("seed", first(request.seeds) ?? request.seed ?? 0);
  set("count", request.count ?? request.seeds?.length ?? 1);
  for (const name of ["prompt", "negative_prompt", "prompt_2", "negative_prompt_2", "class"]) set(name, first(request[name]));
  for (const name of ["steps", "size", "guidance_scale", "eta", "clip_skip", "prompt_syntax", "noise_level", "image_guidance_scale", "negative_class"]) {
    set(name, request[name]);
  }
  // A picture has one seed, which the dice changes.
  for (const name of options.names()) if (name !== "seeds" && request[name] !== false) set(name, request[name]);
  if (request.loras?.length > 0) set("loras", loras.written(request.loras));
  return link;
}

/** The vector that a model is to be told. */
function told(link) {
  if (link.get("told_on")) return link.get("told_colour").match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16) / 127.5 - 1);
  return link.get("vector")?.split(",").map(Number);
}

/** Takes a picture from a file, or takes it away. */
async function take(name, file) {
  warn([]);
  about(name).textContent = "";
  let picture = null;
  try {
    if (file) picture = options.isSound(name) ? { url: await dataUrl(file) } : await fitting(file);
  } catch {
    about(name).textContent = `This browser cannot read “${file.name}” as a picture. Choose a PNG, JPEG, WebP or GIF.`;
  }
  // Another one may have been chosen in the meantime.
  if (file && field(name).files[0] !== file) return;
  if (picture?.note) about(name).textContent = picture.note;
  // A mask belongs to its picture.
  setFiles({ ...files, [name]: picture?.url ?? null, mask: name === "init_image" ? null : files.mask });
  if (!picture) field(name).value = "";
  if (picture && (name === "init_image" || (name === "control_image" && !files.init_image))) size.resemble(picture);
  setUse();
}

/** Pictures that are dropped on the form or pasted: for the place that they are dropped on, or the first one that takes one. */
function takeDropped() {
  const place = (target) => {
    const places = [target.closest?.("[data-drop]"), ...form.querySelectorAll("[data-drop]")];
    return places.find((one) => one && !one.hidden)?.dataset.drop;
  };
  const has = (data) => [...(data?.items ?? [])].some(({ kind, type }) => kind === "file" && type.startsWith("image/"));
  const choose = (event, data) => {
    const name = place(event.target);
    if (!name || !has(data)) return;
    event.preventDefault();
    field(name).files = data.files;
    take(name, field(name).files[0]);
  };
  form.addEventListener("dragover", (event) => {
    if (!has(event.dataTransfer) || !place(event.target)) return;
    event.preventDefault();
    form.classList.add("dropping");
  });
  form.addEventListener("dragleave", (event) => {
    if (!form.contains(event.relatedTarget)) form.classList.remove("dropping");
  });
  form.addEventListener("drop", (event) => {
    form.classList.remove("dropping");
    choose(event, event.dataTransfer);
  });
  document.addEventListener("paste", (event) => choose(event, event.clipboardData));
}

async function setMask(mask) {
  files.mask = mask;
  setUse();
  const about = document.getElementById("about-mask");
  const part = mask && Math.round(100 * (await covered(mask)));
  // It may have changed in the meantime.
  if (files.mask === mask) about.textContent = mask ? `The mask covers ${part < 1 ? "less than 1" : part} % of the picture.` : "";
}

/** Puts pictures that were sent before back into their places. */
export function setFiles(old) {
  for (const name of CHOSEN) {
    files[name] = old[name] ?? null;
    chosen(name).hidden = !files[name];
    if (files[name]) {
      chosen(name).querySelector("img, audio").src = files[name];
      chosen(name).closest("details").open = true;
    } else {
      chosen(name).querySelector("img, audio").removeAttribute("src");
    }
  }
  setMask(old.mask ?? null);
}

/** A file as a data: URL that the server takes: small pictures byte by byte, photos of a phone made smaller. */
async function fitting(file) {
  const img = new Image();
  img.src = URL.createObjectURL(file);
  try {
    await img.decode();
    const [width, height] = [img.naturalWidth, img.naturalHeight];
    if (!width || !height) throw new Error("a picture without a size");
    const side = Math.min(SIDE, server.limits.side ?? SIDE);
    const scale = Math.min(1, side / Math.max(width, height));
    if (scale === 1 && READ.includes(file.type)) return { url: await dataUrl(file), width, height };
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(width * scale)),
      height: Math.max(1, Math.round(height * scale)),
    });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(img, 0, 0, canvas.width, canvas.height);
    const note = scale < 1 ? `Made smaller, from ${width}×${height} to ${canvas.width}×${canvas.height} pixels.` : "";
    return { url: canvas.toDataURL("image/png"), note, width: canvas.width, height: canvas.height };
  } finally {
    URL.revokeObjectURL(img.src);
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
