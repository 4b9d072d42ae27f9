// Follows a training run: its loss, and its sample grids as they come.

import { getJson, pictureUrl } from "./api.js";
import { chart } from "./chart.js";

const byId = (id) => document.getElementById(id);
const EVERY = 2000;
let timer = null;
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
  try {
    const runs = await getJson("/api/runs");
    const chosen = byId("run").value;
    byId("run").replaceChildren(...runs.map(({ name, state }) => new Option(state === "running" ? `${name} (running)` : name, name)));
    const first = runs.find(({ state }) => state === "running") ?? runs.at(-1);
    if (first) byId("run").value = runs.some(({ name }) => name === chosen) ? chosen : first.name;
    if (!runs.length) byId("run-about").textContent = "There is no run yet.";
    await look();
  } catch (error) {
    byId("run-about").textContent = error.message;
  }
}

export function leave() {
  clearTimeout(timer);
}

function forget() {
  for (const { url } of pictures.values()) URL.revokeObjectURL(url);
  pictures.clear();
  byId("run-pictures").replaceChildren();
}

async function look() {
  clearTimeout(timer);
  const name = byId("run").value;
  if (!name) return;
  try {
    const run = await getJson(`/api/runs/${encodeURIComponent(name)}`);
    if (byId("run").value !== name) return;
    draw(run);
    await showPictures(name, run.pictures);
    if (run.state === "running") timer = setTimeout(look, EVERY);
  } catch (error) {
    byId("run-about").textContent = error.message;
  }
}

function draw({ dataset, model, steps, loss, state, losses }) {
  const text = `${model} on ${dataset}: ${state}, ${steps.toLocaleString("en")} steps` + (loss === null ? "" : `, loss ${loss.toFixed(4)}`);
  // Screen readers say what changes, and nothing where nothing does.
  if (byId("run-about").textContent !== text) byId("run-about").textContent = text;
  if (!losses.length) return;
  const logs = losses.map(([step, value]) => [step, Math.log10(value)]);
  const lines = [
    { kind: "signal", points: logs, faint: true },
    { kind: "signal", points: smooth(logs) },
  ];
  const summary = `Logarithm of the loss by step, from ${losses[0][1].toFixed(3)} to ${losses.at(-1)[1].toFixed(3)}`;
  const wide = byId("run-chart").clientWidth > 600;
  byId("run-chart").replaceChildren(chart("Loss, as its logarithm to base 10", summary, "step", lines, wide ? [900, 280] : [360, 220]));
}

/** The mean of each point's neighbours. */
function smooth(points) {
  const reach = Math.max(1, Math.round(points.length / 50));
  return points.map(([step], i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [step, near.reduce((sum, [, value]) => sum + value, 0) / near.length];
  });
}

async function showPictures(run, listed) {
  const items = [];
  for (const { name, modified } of listed) {
    const id = `${name} ${modified}`;
    if (!pictures.has(id)) {
      const url = await pictureUrl(`/api/runs/${encodeURIComponent(run)}/pictures/${encodeURIComponent(name)}`);
      const item = document.createElement("li");
      const img = Object.assign(new Image(), { src: url, alt: `${name} of the run ${run}`, loading: "lazy" });
      item.append(img, name.replace(/\.png$/, ""));
      pictures.set(id, { url, item });
    }
    items.push(pictures.get(id).item);
  }
  if (byId("run").value === run) byId("run-pictures").replaceChildren(...items);
  byId("run-pictures-title").hidden = items.length === 0;
}
