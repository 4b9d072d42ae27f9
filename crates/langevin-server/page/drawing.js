// Generate and Stop: the denoising as it happens.

import { Refused, generate } from "./api.js";
import { keep } from "./gallery.js";
import { columns, describe, image, isLarge, png, proportion } from "./picture.js";
import { model, request, sent, write } from "./settings.js";
import { player } from "./sound.js";

const byId = (id) => document.getElementById(id);
const [pictures, strip, progress, status, following] = ["pictures", "strip", "progress", "status", "following"].map(byId);
let stopping = null;
/** What is on the stage: its images, its model's size, the moments of every picture, and which picture the strip follows. */
let stage = { images: [], size: null, moments: [], followed: 0 };

export function begin() {
  byId("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!stopping) draw();
  });
  byId("stop").addEventListener("click", () => stopping?.abort());
  following.addEventListener("change", () => follow(Number(following.value)));
  pictures.addEventListener("click", ({ target }) => {
    const number = stage.images.indexOf(target);
    if (stage.moments[number]?.length) follow(number);
  });
}

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

/** Tells those who do not see the page; what only counts on is not told. */
export function announce(text) {
  const said = byId("said");
  // The same words are news again.
  said.textContent = said.textContent === text ? `${text}\u00a0` : text;
}

function busy(is) {
  const hadFocus = document.activeElement === byId("stop");
  byId("generate").setAttribute("aria-disabled", is);
  byId("generate").textContent = is ? "Drawing…" : "Generate";
  byId("stop").hidden = !is;
  if (hadFocus && !is) byId("generate").focus({ preventScroll: true });
}

async function draw() {
  const asked = request();
  if (!asked) return;
  const [width, height] = asked.size?.split("x").map(Number) ?? [model().width, model().height];
  const shown = { ...model(), width, height };
  const result = { link: write().toString(), files: sent(asked), model: shown.name, size: shown, pictures: [], time: Date.now() };
  stopping = new AbortController();
  busy(true);
  say("Sending…");
  announce("Drawing.");
  // On a phone the form is as high as the screen.
  if (matchMedia("(max-width: 859px)").matches) byId("stage").scrollIntoView();
  try {
    await watch(asked, shown, result);
    result.pictures.sort((a, b) => a.number - b.number);
    result.strip = stage.moments[stage.followed];
    await keep(result);
  } catch (error) {
    progress.value = 0;
    if (error.name === "AbortError") {
      say("Stopped.");
      announce("Stopped.");
    } else {
      // A connection that breaks is a TypeError of the browser's.
      const text = error instanceof TypeError ? "The connection to the server was lost." : error.message;
      say(text, true);
      announce(text);
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
  let [ended, quarter] = [false, 0];
  for await (const [name, data] of generate(asked, stopping.signal)) {
    if (name === "queued") say(data.ahead ? `Waiting: ${data.ahead} before this one.` : "Waiting for a step to end…");
    if (name === "started") say("Drawing…");
    if (name === "progress") {
      progress.value = data.done / data.total;
      say(`${data.done} of ${data.total} steps, ${duration(data.seconds_left)} left`);
      // Quarters, but not of what is over before they are read out.
      const quarters = Math.floor((4 * data.done) / data.total);
      if (quarters > quarter && quarters < 4 && data.seconds_left > 2) announce(`${25 * quarters} percent, ${duration(data.seconds_left)} left.`);
      quarter = quarters;
      data.previews.forEach(show);
    }
    if (name === "picture") {
      images[data.number].src = png(data.png);
      images[data.number].alt = describe(data, shown);
      hear(data);
      result.pictures.push(data);
    }
    if (name === "error") throw new Refused(data.error, 500);
    if (name === "done") {
      ended = true;
      progress.value = 1;
      const held = flagged(result.pictures);
      say(`Done in ${duration(data.seconds)}.${held}`);
      announce(`Done: ${images.length === 1 ? "the picture is" : `${images.length} pictures are`} drawn.${held}`);
    }
  }
  if (!ended) throw new Refused("The connection to the server was lost.", 0);
}

/** What is to be said of pictures that the safety checker flagged. */
function flagged(drawn) {
  const count = drawn.filter((picture) => picture.flagged).length;
  if (count === 0) return "";
  const which = drawn.length === 1 ? "It was" : count === 1 ? "One of them was" : `${count} of them were`;
  return ` ${which} flagged by the model’s safety checker, and ${count === 1 ? "is" : "are"} black.`;
}

function layOut(count, shown) {
  pictures.classList.remove("empty");
  pictures.style.setProperty("--columns", columns(count));
  pictures.style.setProperty("--ratio", proportion(count, shown));
  for (const element of [pictures, strip]) element.classList.toggle("large", isLarge(shown));
  const blank = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
  const images = Array.from({ length: count }, (_, i) => image(blank, `Picture ${i + 1}, not begun yet`, shown));
  pictures.replaceChildren(...images);
  byId("sounds").replaceChildren();
  progress.value = 0;
  stage = { images, size: shown, moments: images.map(() => []), followed: 0 };
  following.replaceChildren(...images.map((_, i) => new Option(`Picture ${i + 1}`, i)));
  follow(0);
  return images;
}

/** Puts what plays a finished sound below the spectrograms. */
function hear({ number, wav, seed }) {
  if (wav) byId("sounds").append(player(wav, `Sound ${number + 1}, seed ${seed}`));
}

/** Shows the moments of one picture in the strip. */
function follow(number) {
  const { images, moments, size } = stage;
  stage.followed = number;
  following.value = number;
  const isChoice = moments.filter((one) => one.length).length > 1;
  following.closest("label").hidden = !isChoice;
  pictures.classList.toggle("choice", isChoice);
  images.forEach((img, i) => img.classList.toggle("followed", isChoice && i === number));
  strip.replaceChildren(...moments[number].map((one) => moment(one, size)));
  strip.scrollLeft = strip.scrollWidth;
  byId("strip-section").hidden = moments[number].length === 0;
}

function show({ number, step, sample, clean }) {
  const { images, moments, size, followed } = stage;
  images[number].src = png(sample);
  images[number].alt = `Picture ${number + 1} after ${step} steps`;
  moments[number].push({ step, clean });
  if (moments[number].length === 1) follow(followed);
  else if (number === followed) {
    // Whoever has gone back in it is left there.
    const isAtEnd = strip.scrollLeft + strip.clientWidth >= strip.scrollWidth - 4;
    strip.append(moment({ step, clean }, size));
    if (isAtEnd) strip.scrollLeft = strip.scrollWidth;
  }
}

function moment({ step, clean }, shown) {
  const item = document.createElement("li");
  item.append(image(png(clean), `The clean picture as predicted at step ${step}`, shown), `${step}`);
  return item;
}

/** Shows a result that was drawn before; a drawing that goes on is left alone. */
export function showAgain({ pictures: drawn, strip: moments, size }) {
  if (stopping) return;
  const images = layOut(drawn.length, size);
  drawn.forEach(hear);
  drawn.forEach((picture, i) => Object.assign(images[i], { src: png(picture.png), alt: describe(picture, size) }));
  stage.moments[0] = moments;
  follow(0);
  say(`From the gallery.${flagged(drawn)}`);
}

function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
