// The page: its views, and what they are told.

import { Refused } from "./api.js";
import * as compare from "./compare.js";
import * as dropped from "./dropped.js";
import * as drawing from "./drawing.js";
import * as gallery from "./gallery.js";
import * as options from "./options.js";
import * as schedule from "./schedule.js";
import * as settings from "./settings.js";
import * as tokens from "./tokens.js";
import * as training from "./training.js";

const byId = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];
const isShown = (view) => byId(`tab-${view}`).getAttribute("aria-selected") === "true";

function choose(tab, focus = false) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  training.leave();
  if (isShown("schedule")) schedule.show();
  if (isShown("training")) training.enter();
  history.replaceState(null, "", `#${settings.write()}`);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const there = tabs.filter((one) => !one.hidden);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const end = { Home: 0, End: there.length - 1 }[event.key];
    const to = step ? (there.indexOf(tab) + step + there.length) % there.length : end;
    if (to === undefined) return;
    event.preventDefault();
    choose(there[to], true);
  });
}

byId("copy-link").addEventListener("click", async (event) => {
  const button = event.target;
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    drawing.announce("The link is copied.");
  } catch {
    button.textContent = "Copy it from the address bar";
  }
  setTimeout(() => (button.textContent = "Copy link"), 2000);
});

// The hash holds the settings, so that this link does without it.
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  if (!isShown("draw")) choose(byId("tab-draw"));
  byId("stage").focus();
});

/** Puts the settings of a picture's file into the form; what is wrong with it, or will not be as it was, is said beside the gallery. */
async function takeSettings(file) {
  const note = byId("settings-said");
  const say = (text) => {
    note.textContent = text;
    note.hidden = text === "";
  };
  say("");
  try {
    const said = await dropped.settingsOf(file);
    settings.setFiles({});
    await settings.read(settings.linkOf(said));
    const sentences = said.notices.map((notice) => `${notice.charAt(0).toUpperCase()}${notice.slice(1)}.`);
    say([`The settings of “${file.name}” (${said.program}) are in the form.`, ...sentences].join("\n"));
    byId("generate").focus();
  } catch (error) {
    say(error.message);
  }
}

/** Begins, and offers to try again where the server did not let it. */
async function begin() {
  const tab = new URLSearchParams(location.hash.slice(1)).get("tab");
  byId("alert").hidden = true;
  try {
    await settings.begin(() => {
      tokens.show();
      if (isShown("schedule")) schedule.show();
    });
  } catch (error) {
    const again = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again" });
    again.addEventListener("click", begin);
    byId("alert").replaceChildren(error.message, again);
    byId("alert").hidden = false;
    if (error instanceof Refused) return;
    throw error;
  }
  byId("tab-training").hidden = !settings.server.runs;
  drawing.begin();
  training.begin();
  await gallery.begin(drawing.showAgain);
  dropped.begin(takeSettings);
  compare.begin(options.schemas);
  const wanted = tab && byId(`tab-${tab}`);
  if (wanted && !wanted.hidden) choose(wanted);
  document.documentElement.dataset.ready = "yes";
}

await begin();
