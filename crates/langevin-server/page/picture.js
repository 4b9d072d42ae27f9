// Pictures as the page shows them.

/** Below this many pixels a side, a picture is shown in squares and not blurred. */
const PIXELS = 128;

export const png = (base64) => `data:image/png;base64,${base64}`;

/** From this many pixels a side on, a picture is worth a look by itself. */
const LARGE = 256;
export const isLarge = ({ width, height }) => Math.max(width, height) >= LARGE;

/** An image of a model's picture. */
export function image(src, alt, { width, height, sound }) {
  const img = new Image();
  Object.assign(img, { src, alt });
  if (Math.max(width, height) < PIXELS) img.className = "pixels";
  // Low is at the bottom, as people draw it.
  if (sound?.low_first) img.classList.add("spectrogram");
  img.style.setProperty("--shape", `${width} / ${height}`);
  // An enlarged picture is as large as it came, whatever its model's size is.
  img.addEventListener("load", () => {
    if (src !== img.src || src.startsWith("data:image/png")) img.style.setProperty("--shape", `${img.naturalWidth} / ${img.naturalHeight}`);
  });
  return img;
}

/** What a picture is, for those who do not see it. */
export const describe = ({ seed, class: name, flagged: isFlagged }, { name: model }) =>
  `${name ? `${name}, ` : ""}drawn by ${model} from seed ${seed}${isFlagged ? ", black since the safety checker flagged it" : ""}`;

/** How many pictures stand side by side. */
export const columns = (count) => Math.ceil(Math.sqrt(count));

/** How wide pictures side by side are for their height. */
export const proportion = (count, { width, height }) => (columns(count) * width) / (Math.ceil(count / columns(count)) * height);

/** Hands a file to the browser's downloads. */
export function download(name, href) {
  const link = document.createElement("a");
  Object.assign(link, { href, download: name });
  link.click();
}

/** A name for a picture's file that says how to find it again. */
export const fileName = ({ model, seed }, ending = "png") => `${model}-${seed}.${ending}`.replaceAll(/[^\w.-]+/g, "_");
