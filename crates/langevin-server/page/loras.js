// The LoRA that pictures are drawn with: a row for each, and what they come to in one field.

const form = document.getElementById("settings");
const field = () => form.elements.loras;
const rows = document.getElementById("lora-rows");
const add = document.getElementById("lora-add");
/** More than the server takes in one request. */
const MOST = 16;

/** The names that there are. */
let names = [];
let changed = () => {};

const all = () => [...rows.children];

/** Names and scales that a link has, and other scales for parts of the model where it has some; nothing of what is none. */
function pairs(text) {
  try {
    return JSON.parse(text || "[]").map(([name, scale, ...parts]) => [String(name), Number(scale), ...parts.slice(0, 1)]).filter(([, scale]) => Number.isFinite(scale));
  } catch {
    return [];
  }
}

/** What a link says of them, as a request has it. */
export const values = (text) => pairs(text).map(([name, scale, parts]) => (parts ? { name, scale, parts } : { name, scale }));

/** The same in words. */
export const words = (text) => pairs(text).map(([name, scale]) => `${name} (${scale})`).join(", ");

/** As a link has them. */
export const written = (loras) => JSON.stringify(loras.map(({ name, scale, parts }) => (parts ? [name, scale ?? 1, parts] : [name, scale ?? 1])));

function gather() {
  const chosen = all().map((row) => [row.querySelector("select").value, Number(row.querySelector("input").value), ...(row.parts ? [row.parts] : [])]);
  field().value = chosen.length > 0 ? JSON.stringify(chosen) : "";
  add.disabled = chosen.length >= MOST;
}

function labelled(text, input) {
  const label = document.createElement("label");
  label.append(text, input);
  return label;
}

function row(name, scale, parts) {
  const made = document.createElement("div");
  made.className = "lora";
  made.parts = parts;
  const select = document.createElement("select");
  select.append(...names.map((one) => new Option(one, one, false, one === name)));
  const input = Object.assign(document.createElement("input"), { type: "number", min: -10, max: 10, step: "any", required: true, inputMode: "decimal", value: scale });
  const away = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Take away" });
  away.addEventListener("click", () => {
    const next = made.nextElementSibling ?? made.previousElementSibling;
    made.remove();
    (next?.querySelector("select") ?? add).focus();
    gather();
    changed();
  });
  made.append(labelled("LoRA", select), labelled("Strength", input), away);
  return made;
}

/** `change` is called once a row has changed the field. */
export function begin(change) {
  changed = change;
  rows.addEventListener("input", gather);
  add.addEventListener("click", () => {
    rows.append(row(names[0], 1));
    gather();
    rows.lastElementChild.querySelector("select").focus();
    changed();
  });
}

/** Offers the LoRA of a model, none of them chosen. */
export function fit(there) {
  names = there;
  set("");
}

/** Chooses those of a link; the names of those that there are not. */
export function set(text) {
  const wanted = pairs(text);
  rows.replaceChildren(...wanted.filter(([name]) => names.includes(name)).slice(0, MOST).map((one) => row(...one)));
  gather();
  return wanted.map(([name]) => name).filter((name) => !names.includes(name));
}
