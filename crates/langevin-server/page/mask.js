// Painting the mask: what of a picture is to be drawn anew.

const byId = (id) => document.getElementById(id);
const [dialog, sheet, canvas, brush, picture, width] = ["easel", "sheet", "mask", "brush", "easel-picture", "brush-size"].map(byId);
const context = canvas.getContext("2d", { willReadFrequently: true });
/** How the mask looks while it is painted; what is sent is white. */
const INK = "#1f8fff";
const INVERTED = "source-out";
/** Where the brush is, in the canvas's pixels. */
let place = { x: 0, y: 0 };

async function load(url) {
  const img = new Image();
  img.src = url;
  await img.decode();
  return img;
}

const radius = () => (Math.max(canvas.width, canvas.height) * width.value) / 200;

/** Does something to the canvas with another way of putting colours together. */
function composed(operation, draw) {
  context.globalCompositeOperation = operation;
  context.fillStyle = context.strokeStyle = INK;
  draw();
  context.globalCompositeOperation = "source-over";
}

const fill = () => context.fillRect(0, 0, canvas.width, canvas.height);

/** A stroke from where the brush was. */
function stroke(from, to) {
  composed(byId("erase").checked ? "destination-out" : "source-over", () => {
    Object.assign(context, { lineWidth: 2 * radius(), lineCap: "round" });
    context.beginPath();
    context.moveTo(from.x, from.y);
    // A line without a length would not be drawn everywhere.
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
  });
}

function showBrush() {
  const scale = canvas.clientWidth / canvas.width;
  const side = `${2 * radius() * scale}px`;
  brush.hidden = false;
  Object.assign(brush.style, { width: side, height: side, left: `${place.x * scale}px`, top: `${place.y * scale}px` });
}

const at = ({ offsetX, offsetY }) => ({ x: (offsetX * canvas.width) / canvas.clientWidth, y: (offsetY * canvas.height) / canvas.clientHeight });

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  place = at(event);
  stroke(place, place);
  showBrush();
});
canvas.addEventListener("pointermove", (event) => {
  const last = place;
  place = at(event);
  if (canvas.hasPointerCapture(event.pointerId)) stroke(last, place);
  showBrush();
});
canvas.addEventListener("pointerleave", () => (brush.hidden = document.activeElement !== canvas));
canvas.addEventListener("focus", showBrush);
canvas.addEventListener("blur", () => (brush.hidden = true));
canvas.addEventListener("keydown", (event) => {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (event.key === " ") stroke(place, place);
  else if (!dx && !dy) return;
  event.preventDefault();
  const moved = (from, by, most) => Math.min(Math.max(0, from + (by * radius()) / 2), most);
  place = { x: moved(place.x, dx, canvas.width), y: moved(place.y, dy, canvas.height) };
  showBrush();
});
width.addEventListener("input", () => {
  width.nextElementSibling.textContent = width.value;
  showBrush();
});
dialog.addEventListener("click", ({ target }) => {
  if (target.dataset.do === "clear") context.clearRect(0, 0, canvas.width, canvas.height);
  if (target.dataset.do === "invert") composed(INVERTED, fill);
  if (target.dataset.do === "done") dialog.close();
});

/** A mask that was painted, white on black, as ink on nothing. */
async function take(mask) {
  context.drawImage(await load(mask), 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
  context.putImageData(pixels, 0, 0);
  composed("source-in", fill);
}

/** The mask as a picture, white where to paint and black elsewhere; null where nothing is painted. */
function made() {
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (!data.some((value, i) => i % 4 === 3 && value > 127)) return null;
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const onto = copy.getContext("2d");
  onto.drawImage(canvas, 0, 0);
  for (const [operation, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
    onto.globalCompositeOperation = operation;
    onto.fillStyle = colour;
    onto.fillRect(0, 0, copy.width, copy.height);
  }
  return copy.toDataURL("image/png");
}

/** Has a mask painted over a picture, from one that there is: both and what comes of it are data: URLs, or null for none. */
export async function paint(url, mask) {
  const img = await load(url);
  picture.src = url;
  Object.assign(canvas, { width: img.naturalWidth, height: img.naturalHeight });
  place = { x: canvas.width / 2, y: canvas.height / 2 };
  sheet.style.setProperty("--shape", canvas.width / canvas.height);
  if (mask) await take(mask);
  dialog.showModal();
  brush.hidden = true;
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return made();
}

/** Lays a mask over the small picture that it belongs to, or takes it away. */
export function shade(img, mask) {
  img.hidden = !mask;
  if (mask) img.src = mask;
  else img.removeAttribute("src");
}

/** The part of the picture that a mask covers, 0 to 1. */
export async function covered(mask) {
  const img = await load(mask);
  const copy = Object.assign(document.createElement("canvas"), { width: img.naturalWidth, height: img.naturalHeight });
  const onto = copy.getContext("2d");
  onto.drawImage(img, 0, 0);
  const { data } = onto.getImageData(0, 0, copy.width, copy.height);
  let white = 0;
  for (let i = 0; i < data.length; i += 4) white += data[i] > 127;
  return (4 * white) / data.length;
}
