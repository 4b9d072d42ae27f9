// How many tokens the prompts have, and where the chunks end that go through the text encoder.

import { getJson } from "./api.js";
import { texted } from "./settings.js";

/** So long after the last letter the server is asked. */
const PAUSE = 400;
/** Of a chunk's text as much is shown. */
const SHOWN = 24;
const waiting = {};

/** Counts the tokens of what the form says. */
export function show() {
  ["prompt", "negative_prompt"].forEach(later);
}

function later(name) {
  const asked = texted(name);
  const key = JSON.stringify(asked);
  const state = (waiting[name] ??= {});
  if (state.key === key) return;
  state.key = key;
  clearTimeout(state.timer);
  const place = document.getElementById(`tokens-${name}`);
  if (!asked?.text.trim()) return place.replaceChildren();
  state.timer = setTimeout(async () => {
    let sentence;
    try {
      sentence = words(await getJson(`/api/tokens?${new URLSearchParams(asked)}`));
    } catch (error) {
      sentence = error.message;
    }
    // The text may have changed since.
    if (state.key === key) place.textContent = sentence;
  }, PAUSE);
}

function words({ chunks, room, unseen }) {
  const count = chunks.map(({ tokens }) => tokens).join(" + ");
  if (unseen) return `More than ${room} tokens: the model does not see “${short(unseen)}”.`;
  if (chunks.length === 1) return `${count} of ${room} tokens.`;
  const starts = chunks.slice(1).map(({ text }) => `“${short(text)}”`);
  return `${count} tokens, in chunks of up to ${room}; new ones begin with ${starts.join(", ")}.`;
}

const short = (text) => (text.length > SHOWN ? `${text.slice(0, SHOWN).trim()}…` : text || "nothing");
