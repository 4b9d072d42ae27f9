// Pictures as the page shows them.

/** Below this many pixels a side, a picture is shown in squares and not blurred. */
const PIXELS = 128;

export const png = (base64) => `data:image/png;base64,${base64}`;

/** An image of a model's picture. */
export function image(src, alt, { width, height }) {
  const img = new Image();
  Object.assign(img, { src, alt });
  if (Math.max(width, height) < PIXELS) img.className = "pixels";
  img.style.setProperty("--shape", `${width} / ${height}`);
  return img;
}

/** How many pictures stand side by side. */
export const columns = (count) => Math.ceil(Math.sqrt(count));

/** Hands a file to the browser's downloads. */
export function download(name, href) {
  const link = document.createElement("a");
  Object.assign(link, { href, download: name });
  link.click();
}

/** A name for a picture's file that says how to find it again. */
export const fileName = ({ model, seed }, ending = "png") => `${model}-${seed}.${ending}`.replaceAll(/[^\w.-]+/g, "_");
