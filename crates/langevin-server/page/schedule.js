// The noise schedule, and where the chosen sampler's steps fall on it.

import { getJson } from "./api.js";
import { chart } from "./chart.js";
import { problem, scheduled } from "./settings.js";

const [charts, about] = ["schedule-charts", "schedule-about"].map((id) => document.getElementById(id));
/** More dots than this would be a line. */
const DOTS = 60;
let latest = 0;

/** Draws the schedule of what the form says. */
export async function show() {
  const number = ++latest;
  const wrong = problem("steps");
  if (wrong) return refuse(`No schedule to show yet. ${wrong}`);
  const query = new URLSearchParams(scheduled());
  try {
    const schedule = await getJson(`/api/schedule?${query}`);
    // The form may have changed since.
    if (number === latest) draw(schedule);
  } catch (error) {
    if (number === latest) refuse(error.message);
  }
}

function refuse(why) {
  charts.replaceChildren();
  about.textContent = why;
}

function draw({ sampler, steps, train_timesteps, curve, calls }) {
  about.textContent =
    `${sampler} takes ${steps} steps and asks the model ${calls.length} times, between timestep ` +
    `${Math.round(calls[0].timestep)} (noise) and ${Math.round(calls.at(-1).timestep)} (picture) of ${train_timesteps}.`;
  const stride = Math.ceil(calls.length / DOTS);
  const shown = calls.filter((_, i) => i % stride === 0);
  const by = (of, points) => points.map((point) => [point.timestep, of(point)]);
  const ratio = ({ signal, noise }) => 2 * Math.log(signal / noise);
  const line = (kind, of, name) => ({ kind, name, points: by(of, curve), dots: by(of, shown) });
  const walk = calls.map(({ timestep }, i) => [i + 1, timestep]);
  charts.replaceChildren(
    chart("Signal and noise", "Share of signal and of noise by timestep, with the sampler's steps as dots", "timestep", [
      line("signal", ({ signal }) => signal, "signal"),
      line("noise", ({ noise }) => noise, "noise"),
    ]),
    chart("Logarithm of the signal-to-noise ratio", "It falls from the clean picture to noise, with the sampler's steps as dots", "timestep", [line("signal", ratio)]),
    chart("Timesteps of the sampler", "Timestep of each call of the model", "call of the model", [
      { kind: "signal", points: walk, dots: walk.filter((_, i) => i % stride === 0) },
    ]),
  );
}
