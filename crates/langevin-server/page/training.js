// Follows a training run: its loss, and its sample grids as they come.

import { getJson, pictureUrl } from "./api.js";
import { chart } from "./chart.js";
import { announce } from "./drawing.js";

const byId = (id) => document.getElementById(id);
/** Milliseconds until the next look: at a run that goes on, and at one that may go on again. */
const [EVERY, SELDOM] = [2000, 10_000];
let timer = null;
let isOpen = false;
/** The look whose answers count. */
let latest = 0;
let listed = "";
let told = "";
/** Pictures that are shown, by name and time. */
const pictures = new Map();

export function begin() {
  byId("run").addEventListener("change", () => {
    forget();
    look();
  });
}

/** Follows the chosen run until `leave`. */
export async function enter() {
  isOpen = true;
  told = "";
  await look();
}

export function leave() {
  isOpen = false;
  latest++;
  clearTimeout(timer);
}

function forget() {
  for (const { url } of pictures.values()) URL.revokeObjectURL(url);
  pictures.clear();
  byId("run-pictures").replaceChildren();
  told = "";
}

/** Lists the runs; the one that was chosen stays so. */
function list(runs) {
  // An open list is not pulled from under the user's finger.
  if (listed === JSON.stringify(runs.map(({ name, state }) => [name, state]))) return;
  listed = JSON.stringify(runs.map(({ name, state }) => [name, state]));
  const chosen = byId("run").value;
  byId("run").replaceChildren(...runs.map(({ name, state }) => new Option(state === "running" ? `${name} (running)` : name, name)));
  const first = runs.find(({ state }) => state === "running") ?? runs.at(-1);
  if (first) byId("run").value = runs.some(({ name }) => name === chosen) ? chosen : first.name;
}

async function look() {
  clearTimeout(timer);
  const number = ++latest;
  let wait = SELDOM;
  try {
    const runs = await getJson("/api/runs");
    if (number !== latest) return;
    list(runs);
    const name = byId("run").value;
    if (!name) {
      byId("run-about").textContent = "There is no run yet.";
      return;
    }
    const run = await getJson(`/api/runs/${encodeURIComponent(name)}`);
    if (number !== latest) return;
    if (run.state === "running") wait = EVERY;
    draw(run);
    tell(name, run.state);
    await showPictures(name, run.pictures, () => number === latest);
  } catch (error) {
    if (number === latest) byId("run-about").textContent = error.message;
    // Whoever gave no key is not asked every few seconds.
    if (error.status === 401) wait = null;
  } finally {
    if (isOpen && number === latest && wait) timer = setTimeout(look, wait);
  }
}

/** Tells those who do not see the page how a run is, and again when that is another word. */
function tell(name, state) {
  if (told === `${name} ${state}`) return;
  told = `${name} ${state}`;
  announce(`${byId("run-about").textContent}.`);
}

function draw({ dataset, model, steps, loss, state, losses }) {
  const text = `${model} on ${dataset}: ${state}, ${steps.toLocaleString("en")} steps` + (loss === null ? "" : `, loss ${loss.toFixed(4)}`);
  byId("run-about").textContent = text;
  if (!losses.length) return byId("run-chart").replaceChildren();
  const lines = [
    { kind: "signal", points: losses, faint: true },
    { kind: "signal", points: smooth(losses) },
  ];
  const said = (value) => Number(value.toPrecision(3));
  const summary = `Loss by step on a logarithmic axis, from ${said(losses[0][1])} to ${said(losses.at(-1)[1])}`;
  const wide = byId("run-chart").clientWidth > 600;
  byId("run-chart").replaceChildren(chart("Loss, on a logarithmic axis", summary, "step", lines, wide ? [900, 280] : [360, 220], true));
}

/** The geometric mean of each point's neighbours: on a logarithmic axis, the middle between them. */
function smooth(points) {
  const reach = Math.max(1, Math.round(points.length / 50));
  return points.map(([step], i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1).filter(([, value]) => value > 0);
    return [step, 10 ** (near.reduce((sum, [, value]) => sum + Math.log10(value), 0) / near.length)];
  });
}

/** Which weights drew a picture, in words. */
const WEIGHTS = { average: "by the average of the weights", trained: "by the weights as they were trained" };

async function showPictures(run, there, isLatest) {
  const items = [];
  for (const { name, modified, of } of there) {
    const id = `${name} ${modified}`;
    if (!pictures.has(id)) {
      const url = await pictureUrl(`/api/runs/${encodeURIComponent(run)}/pictures/${encodeURIComponent(name)}`);
      if (!isLatest()) return URL.revokeObjectURL(url);
      const item = document.createElement("li");
      const img = Object.assign(new Image(), { src: url, alt: `${name} of the run ${run}, drawn ${WEIGHTS[of]}` });
      const by = Object.assign(document.createElement("span"), { className: "by", textContent: WEIGHTS[of] });
      item.append(img, name.replace(/\.png$/, ""), by);
      pictures.set(id, { url, item });
    }
    items.push(pictures.get(id).item);
  }
  byId("run-pictures").replaceChildren(...items);
  byId("run-pictures-title").hidden = items.length === 0;
  for (const [id, { url, item }] of pictures) {
    if (items.includes(item)) continue;
    URL.revokeObjectURL(url);
    pictures.delete(id);
  }
}
