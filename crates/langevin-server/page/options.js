// Options that have no control of their own in the form: each becomes one, as the API describes it. What a new option needs on this page is
// nothing.

import { getJson } from "./api.js";

const form = document.getElementById("settings");
/** Fields that other controls stand for. */
const BY_HAND = ["scheduler", "guide", "inpaint", "mask", "vector", "previews"];
/** Where options go that need this of a model; the others go under "More options". */
const PLACES = {
  sizes: "sizes", scores: "sizes", parts: "sizes", depth: "init", conditioning_image: "shown", control: "control", enlarge: "enlarge", sound: "sound",
  encoding: "sound",
};
/** Models that have use for a picture, where not all have. */
const TAKES = {
  depth: ({ depth }) => depth, vector_of: ({ vector }) => vector?.of, init_audio: ({ sound }) => sound, continue_audio: ({ sound }) => sound,
};

/** The fields of a request, as the API describes them. */
export let schemas = {};
/** The options, by their names. */
const options = new Map();

/** The names of options that a link carries. */
export const names = () => [...options].filter(([, { picture }]) => !picture).map(([name]) => name);
/** The names of options that are pictures. */
export const pictures = () => [...options].filter(([, { picture }]) => picture).map(([name]) => name);
/** Whether an option is a sound. */
export const isSound = (name) => options.get(name)?.kind === "audio/*";

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const title = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");

/** An option's sentence, without the default that ends it in brackets, and that default. */
function parts(description = "") {
  const [, sentence, usual] = description.match(/^(.*?)(?:\s*\[([^\]]*)\])?\.?$/s);
  return { sentence: sentence && `${sentence}.`, usual };
}

/** Makes the controls. */
export async function begin() {
  const { components } = await getJson("/api/openapi.json");
  schemas = components.schemas.GenerateRequest.properties;
  for (const [name, schema] of Object.entries(schemas)) {
    if (form.elements[name] || BY_HAND.includes(name)) continue;
    const types = [schema.type].flat();
    const picture = schema.contentEncoding !== undefined;
    options.set(name, { picture, kind: schema.contentMediaType, types, items: [schema.items?.type].flat() });
    const place = name.startsWith("guide_") ? "loss" : PLACES[schema["x-needs"]] ?? "more";
    const made = element("div", { class: "option", "data-needs": schema["x-needs"] }, ...control(name, schema, types, picture));
    document.getElementById(`details-${place}`).append(made);
  }
}

function control(name, schema, types, picture) {
  const { sentence, usual } = parts(schema.description);
  const hint = element("p", { class: "hint", id: `hint-${name}` }, sentence);
  const described = { name, "aria-describedby": `hint-${name}` };
  if (picture) {
    const kind = schema.contentMediaType ?? "image/*";
    const input = element("input", { type: "file", name, accept: kind, "aria-describedby": `hint-${name} about-${name}` });
    const isHeard = kind === "audio/*";
    const img = isHeard ? element("audio", { controls: "", "aria-label": title(name) }) : element("img", { alt: title(name) });
    const chosen = element("div", { class: "chosen", "data-of": name }, element("div", { class: "sheet" }, img), element("button", { type: "button" }, "Take away"));
    chosen.hidden = true;
    return [element("label", {}, title(name), input), hint, chosen, element("p", { class: "hint", id: `about-${name}`, role: "status" })];
  }
  if (types.includes("boolean")) {
    return [element("label", { class: "check" }, element("input", { ...described, type: "checkbox" }), ` ${title(name)}`), hint];
  }
  let input;
  if (schema.enum) {
    const choices = schema.enum.filter((choice) => choice !== null);
    input = element("select", described, new Option(usual ? `As usual: ${usual}` : "As usual", ""), ...choices.map((choice) => new Option(choice, choice)));
  } else if (types.includes("integer") || types.includes("number")) {
    const whole = types.includes("integer");
    const least = schema.minimum ?? schema.exclusiveMinimum;
    const limits = { min: least, max: schema.maximum ?? schema.exclusiveMaximum, step: whole ? 1 : "any" };
    input = element("input", { ...described, ...limits, type: "number", inputmode: whole ? "numeric" : "decimal", placeholder: usual });
  } else {
    const listed = types.includes("array") && "\\s*-?[0-9.]+(\\s*,\\s*-?[0-9.]+)*\\s*";
    const pattern = listed || schema.pattern?.replace(/^\^|\$$/g, "");
    input = element("input", { ...described, type: "text", autocomplete: "off", pattern, placeholder: usual ?? schema.examples?.[0], maxlength: schema.maxLength });
  }
  return [element("label", {}, title(name), input), hint];
}

/** What a link says of the options, as a request has it. */
export function values(link) {
  const request = {};
  for (const name of names()) {
    const text = link.get(name);
    const { types, items } = options.get(name);
    if (!text) continue;
    if (types.includes("boolean")) request[name] = text === "1";
    else if (types.includes("integer") || types.includes("number")) request[name] = Number(text);
    else if (types.includes("array") && !types.includes("string")) request[name] = text.split(",").map((one) => (items.includes("string") ? one.trim() : Number(one)));
    else request[name] = text;
  }
  return request;
}

/** The pictures among `files` that options are and a model has use for. */
export function chosen(files, model) {
  const used = pictures().filter((name) => files[name] && (TAKES[name] ?? (() => true))(model));
  return Object.fromEntries(used.map((name) => [name, files[name]]));
}
