// The size of the pictures of a model of latents: the usual choices, or any other.

const form = document.getElementById("settings");
const field = (name) => form.elements[name];
const free = document.getElementById("size-free");
/** Sizes that such models were trained at, by the side of the model's own. */
const USUAL = {
  512: ["512x768", "768x512", "768x768"],
  768: ["768x768", "512x768", "768x512", "1024x768"],
  1024: ["832x1216", "1216x832", "896x1152", "1152x896", "768x1344", "1344x768"],
};
const OTHER = "other";
/** Of larger pictures, sides that these divide are the ones that models know. */
const ROUND = 64;
let [own, divisor, most] = [[0, 0], 1, 0];

/** `changed` is called once a choice has become a size. */
export function begin(changed) {
  field("size_choice").addEventListener("change", () => {
    const value = field("size_choice").value;
    free.hidden = value !== OTHER;
    if (value !== OTHER) put(value);
    changed();
  });
  for (const name of ["width", "height"]) {
    field(name).addEventListener("input", () => (field("size").value = `${field("width").value}x${field("height").value}`));
  }
}

const sides = (size) => size.split("x").map(Number);

function put(size) {
  field("size").value = size;
  [field("width").value, field("height").value] = sides(size);
}

function words(size) {
  const [width, height] = sides(size);
  const kind = size === own.join("x") ? "the model’s" : width === height ? "square" : width < height ? "upright" : "wide";
  return `${width} × ${height}, ${kind}`;
}

function fill(others) {
  const sizes = [...new Set([own.join("x"), ...others])].filter((size) => sides(size).every((side) => side <= most && side % divisor === 0));
  field("size_choice").replaceChildren(...sizes.map((size) => new Option(words(size), size)), new Option("Another size", OTHER));
}

/** Offers the sizes of a model, and chooses its own. */
export function fit(model, limit) {
  [own, divisor, most] = [[model.width, model.height], model.divisor, limit];
  for (const name of ["width", "height"]) Object.assign(field(name), { min: divisor, max: most, step: divisor });
  set(own.join("x"));
}

const usual = () => {
  const [width, height] = own;
  const longer = (side) => Math.round((side * 1.5) / divisor) * divisor;
  return USUAL[width] ?? [`${width}x${longer(height)}`, `${longer(width)}x${height}`];
};

/** Chooses a size, such as `512x768`. */
export function set(size) {
  fill(usual());
  put(size);
  const choice = field("size_choice");
  choice.value = size;
  if (choice.selectedIndex < 0) choice.value = OTHER;
  free.hidden = choice.value !== OTHER;
}

/** Chooses a size of a picture's shape, with about as many pixels as the model's own. */
export function resemble({ width, height }) {
  const scale = Math.sqrt((own[0] * own[1]) / (width * height));
  const by = Math.max(...own) >= 8 * ROUND ? ROUND : divisor;
  const side = (length) => Math.min(Math.max(by, Math.round((length * scale) / by) * by), Math.floor(most / by) * by);
  const size = `${side(width)}x${side(height)}`;
  fill([...usual(), size]);
  put(size);
  field("size_choice").value = size;
  free.hidden = true;
}
