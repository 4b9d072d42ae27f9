// Generate and Stop: the denoising as it happens.

import { Refused, generate } from "./api.js";
import { keep } from "./gallery.js";
import { columns, image, png } from "./picture.js";
import { files, model, request, write } from "./settings.js";

const byId = (id) => document.getElementById(id);
const [pictures, strip, progress, status] = ["pictures", "strip", "progress", "status"].map(byId);
let stopping = null;

export function begin() {
  byId("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!stopping) draw();
  });
  byId("stop").addEventListener("click", () => stopping?.abort());
}

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

function busy(is) {
  byId("generate").disabled = is;
  byId("generate").textContent = is ? "Drawing…" : "Generate";
  byId("stop").hidden = !is;
}

async function draw() {
  const asked = request();
  if (!asked) return;
  const shown = { ...model() };
  const result = { link: write().toString(), files: { ...files }, model: shown.name, size: shown, pictures: [], strip: [], time: Date.now() };
  stopping = new AbortController();
  busy(true);
  say("Sending…");
  // On a phone the form is as high as the screen.
  if (matchMedia("(max-width: 859px)").matches) byId("stage").scrollIntoView();
  try {
    await watch(asked, shown, result);
    result.pictures.sort((a, b) => a.number - b.number);
    await keep(result);
  } catch (error) {
    if (error.name === "AbortError") {
      say("Stopped.");
      progress.value = 0;
    } else {
      say(error.message, true);
      if (!(error instanceof Refused)) throw error;
    }
  } finally {
    stopping = null;
    busy(false);
  }
}

/** Follows the server's news until the last picture. */
async function watch(asked, shown, result) {
  const images = layOut(asked.count ?? 1, shown);
  let ended = false;
  for await (const [name, data] of generate(asked, stopping.signal)) {
    if (name === "queued") say(data.ahead ? `Waiting: ${data.ahead} before this one.` : "Waiting for a step to end…");
    if (name === "started") say("Drawing…");
    if (name === "progress") {
      progress.value = data.done / data.total;
      say(`${data.done} of ${data.total} steps, ${duration(data.seconds_left)} left`);
      data.previews.forEach((preview) => show(images, preview, shown, result));
    }
    if (name === "picture") {
      images[data.number].src = png(data.png);
      images[data.number].alt = describe(data, shown);
      result.pictures.push(data);
    }
    if (name === "error") throw new Refused(data.error, 500);
    if (name === "done") {
      ended = true;
      progress.value = 1;
      say(`Done in ${duration(data.seconds)}.`);
    }
  }
  if (!ended) throw new Refused("The connection to the server was lost.", 0);
}

export const describe = ({ seed, class: name }, { name: model }) => `${name ? `${name}, ` : ""}drawn by ${model} from seed ${seed}`;

function layOut(count, shown) {
  pictures.classList.remove("empty");
  pictures.style.setProperty("--columns", columns(count));
  const blank = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
  const images = Array.from({ length: count }, (_, i) => image(blank, `Picture ${i + 1}, not begun yet`, shown));
  pictures.replaceChildren(...images);
  strip.replaceChildren();
  byId("strip-section").hidden = true;
  progress.value = 0;
  return images;
}

function show(images, { number, step, sample, clean }, shown, result) {
  images[number].src = png(sample);
  images[number].alt = `Picture ${number + 1} after ${step} steps`;
  if (number > 0) return;
  byId("strip-section").hidden = false;
  result.strip.push({ step, clean });
  strip.append(moment({ step, clean }, shown));
  strip.scrollLeft = strip.scrollWidth;
}

function moment({ step, clean }, shown) {
  const item = document.createElement("li");
  item.append(image(png(clean), `The clean picture as predicted at step ${step}`, shown), `${step}`);
  return item;
}

/** Shows a result that was drawn before. */
export function showAgain({ pictures: drawn, strip: moments, size }) {
  const images = layOut(drawn.length, size);
  drawn.forEach((picture, i) => Object.assign(images[i], { src: png(picture.png), alt: describe(picture, size) }));
  strip.append(...moments.map((one) => moment(one, size)));
  byId("strip-section").hidden = moments.length === 0;
  say("From the gallery.");
}

function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
