// Every combination of some settings, as one labelled picture.

import { call } from "./api.js";
import { keep } from "./gallery.js";
import { png } from "./picture.js";
import { model, request, sent, write } from "./settings.js";

const byId = (id) => document.getElementById(id);
const form = byId("settings");
const field = form.elements.compare;
/** The most combinations. */
const MOST = 36;
/** How many are asked for at once: the server draws pictures together. */
const AT_ONCE = 4;
/** Pixels around labels, and how high they are. */
const [GAP, LINE] = [8, 20];
/** Small pictures are enlarged to this many pixels a side, as far as whole numbers go. */
const LEAST = 128;
/** What some settings are called here, and in a request. */
const CALLED = { scheduler: "sampler", cfg: "guidance_scale", cfg_scale: "guidance_scale" };

let stopping = null;

/** Settings and the values that each takes, of `steps=10,20; sampler=euler,ddim`; values with commas in them stand between `|`. An error says what is none. */
export function axes(text) {
  const all = text.split(";").map((part) => part.trim()).filter((part) => part !== "").map((part) => {
    const [name, ...rest] = part.split("=");
    const values = rest.join("=");
    const option = name.trim().replace(/^-+/, "").replaceAll("-", "_");
    if (rest.length === 0 || values.trim() === "" || option === "") throw new Error(`“${part}” is no setting with its values, as in steps=10,20,40.`);
    return { option: CALLED[option] ?? option, values: values.split(values.includes("|") ? "|" : ",").map((value) => value.trim()) };
  });
  if (all.length === 0) throw new Error("Say what is compared, as in steps=10,20,40; sampler=euler,ddim.");
  const twice = all.find(({ option }, i) => all.findIndex((other) => other.option === option) !== i);
  if (twice) throw new Error(`“${twice.option}” is there twice.`);
  const count = all.reduce((product, { values }) => product * values.length, 1);
  if (count > MOST) throw new Error(`These are ${count} pictures, and ${MOST} at most are compared.`);
  return all;
}

/** A value as a request has it, where the API says what it is: a number or a yes where it is one. */
function typed(option, text, schema) {
  const types = [schema.type].flat();
  if (types.includes("boolean")) return text === "true" || text === "1";
  if ((types.includes("number") || types.includes("integer")) && text !== "" && Number.isFinite(Number(text))) return Number(text);
  return text;
}

/** All combinations: the last setting changes first. */
const combinations = (all) => all.reduce((before, { option, values }) => before.flatMap((one) => values.map((value) => [...one, [option, value]])), [[]]);

/** Where pictures stand: the last setting across, the others down. */
function table(all) {
  const across = all.at(-1).values.length;
  return { across, down: combinations(all).length / across };
}

const said = (pairs) => pairs.map(([option, value]) => `${option.replaceAll("_", " ")} ${value}`).join(", ");

/** One picture of all of them, with what differs beside and above. */
function together(all, images) {
  const { across, down } = table(all);
  const [own] = images;
  const times = Math.max(1, Math.floor(LEAST / Math.max(own.naturalWidth, own.naturalHeight)));
  const [width, height] = [own.naturalWidth * times, own.naturalHeight * times];
  const every = combinations(all);
  const rows = Array.from({ length: down }, (_, row) => said(every[row * across].slice(0, -1)));
  const columns = Array.from({ length: across }, (_, column) => said([every[column].at(-1)]));
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const font = `${LINE - 6}px sans-serif`;
  context.font = font;
  const beside = Math.ceil(Math.max(...rows.map((text) => context.measureText(text).width))) + (rows[0] ? 2 * GAP : 0);
  const cell = Math.max(width, ...columns.map((text) => Math.ceil(context.measureText(text).width))) + GAP;
  canvas.width = beside + across * cell + GAP;
  canvas.height = LINE + GAP + down * (height + GAP);
  Object.assign(context, { font, fillStyle: "#fff", imageSmoothingEnabled: false });
  context.fillRect(0, 0, canvas.width, canvas.height);
  Object.assign(context, { fillStyle: "#111", textBaseline: "middle", textAlign: "center" });
  columns.forEach((text, i) => context.fillText(text, beside + i * cell + cell / 2, LINE / 2 + GAP / 2));
  context.textAlign = "left";
  rows.forEach((text, i) => context.fillText(text, GAP, LINE + GAP + i * (height + GAP) + height / 2));
  images.forEach((image, i) => {
    const [column, row] = [i % across, Math.floor(i / across)];
    context.drawImage(image, beside + column * cell + (cell - width) / 2, LINE + GAP + row * (height + GAP), width, height);
  });
  return canvas;
}

async function draw(body, signal) {
  const response = await call("/api/generate", {
    method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json", Accept: "application/json" },
  });
  const [picture] = (await response.json()).pictures;
  const image = new Image();
  image.src = png(picture.png);
  await image.decode();
  return { image, picture };
}

/** Draws all of them, a few at a time, and keeps the one picture that they come to. */
async function compare(schemas) {
  const note = byId("compare-said");
  const say = (text, bad = false) => {
    note.textContent = text;
    note.classList.toggle("bad", bad);
  };
  if (stopping) return stopping.abort();
  let all;
  try {
    all = axes(field.value);
    const unknown = all.find(({ option }) => !(option in schemas));
    if (unknown) throw new Error(`There is no setting “${unknown.option}”: the API lists those that there are.`);
  } catch (error) {
    return say(error.message, true);
  }
  const base = request();
  if (!base) return say("");
  const link = write().toString();
  stopping = new AbortController();
  byId("compare-draw").textContent = "Stop";
  const every = combinations(all);
  const drawn = [];
  let done = 0;
  const next = async () => {
    for (let i = drawn.length; i < every.length; i = drawn.length) {
      drawn.push(null);
      const changes = Object.fromEntries(every[i].map(([option, value]) => [option, typed(option, value, schemas[option])]));
      drawn[i] = await draw({ ...base, count: 1, ...changes }, stopping.signal);
      done += 1;
      say(`${done} of ${every.length} drawn.`);
    }
  };
  try {
    say(`0 of ${every.length} drawn.`);
    await Promise.all(Array.from({ length: AT_ONCE }, next));
    const canvas = together(all, drawn.map(({ image }) => image));
    const data = canvas.toDataURL("image/png").split(",")[1];
    const shown = { ...model(), width: canvas.width, height: canvas.height };
    const whole = { ...drawn[0].picture, png: data, number: 0 };
    await keep({ link, files: sent(base), model: `${model().name}, ${field.value}`, size: shown, pictures: [whole], strip: [], time: Date.now() });
    say(`Done: all ${every.length} are in the gallery, as one picture.`);
  } catch (error) {
    // The others have no use any more.
    stopping.abort();
    say(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
  } finally {
    stopping = null;
    byId("compare-draw").textContent = "Draw and compare";
  }
}

/** Begins; `schemas` are the fields of a request as the API describes them. */
export function begin(schemas) {
  byId("compare-draw").addEventListener("click", () => compare(schemas));
}
