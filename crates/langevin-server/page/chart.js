// Line charts as SVG.

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [360, 220];
const ROOM = { left: 44, right: 8, top: 10, bottom: 34 };
/** The part of a range that stays free above and below what is drawn. */
const MARGIN = 0.04;

function element(name, attributes, ...children) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Round numbers between two values, about five of them. */
function ticks(low, high) {
  const raw = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw - 1e-12);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** The same on a logarithmic axis, between two logarithms to base 10: powers of ten with their doubles and halves, or what is round. */
function logTicks(low, high) {
  const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => Math.floor(low) + i);
  const factors = high - low > 3 ? [1] : [1, 2, 5];
  const values = powers.flatMap((power) => factors.map((factor) => factor * 10 ** power));
  const within = values.map(Math.log10).filter((value) => value >= low && value <= high);
  return within.length > 1 ? within : ticks(10 ** low, 10 ** high).filter((value) => value > 0).map(Math.log10);
}

const written = (value) => (Math.abs(value) >= 1000 ? `${value / 1000}k` : `${Number(value.toPrecision(4))}`);

/**
 * A figure with lines and dots: `lines` are { kind, points: [x, y][], dots?: [x, y][], name?, faint? }. What it shows is said in
 * `summary` for whoever does not see it. On a logarithmic axis values stand at their logarithms, and what has none is left out.
 */
export function chart(title, summary, across, values, shape = [WIDTH, HEIGHT], logarithmic = false) {
  const [width, height] = shape;
  const up = ([x, value]) => [x, logarithmic ? Math.log10(value) : value];
  const lines = values.map((line) => ({ ...line, points: line.points.map(up), dots: line.dots?.map(up) }));
  const all = lines.flatMap(({ points, dots }) => [...points, ...(dots ?? [])]).filter(([, y]) => Number.isFinite(y));
  const range = (i) => {
    const values = all.map((point) => point[i]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = low === high ? 1 : i * MARGIN * (high - low);
    return [low - margin, high + margin];
  };
  const [[left, right], [low, high]] = all.length ? [range(0), range(1)] : [[0, 1], [0, 1]];
  const x = (value) => ROOM.left + ((value - left) / (right - left)) * (width - ROOM.left - ROOM.right);
  const y = (value) => height - ROOM.bottom - ((value - low) / (high - low)) * (height - ROOM.top - ROOM.bottom);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary });
  for (const value of logarithmic ? logTicks(low, high) : ticks(low, high)) {
    const label = written(logarithmic ? 10 ** value : value);
    svg.append(
      element("line", { class: "grid", x1: ROOM.left, x2: width - ROOM.right, y1: y(value), y2: y(value) }),
      element("text", { x: ROOM.left - 6, y: y(value) + 4, "text-anchor": "end" }, label),
    );
  }
  for (const value of ticks(left, right)) {
    svg.append(element("text", { x: x(value), y: height - ROOM.bottom + 14, "text-anchor": "middle" }, written(value)));
  }
  svg.append(element("text", { x: width - ROOM.right, y: height - 4, "text-anchor": "end" }, across));
  for (const { kind, points, dots, name, faint } of lines) {
    const d = points.filter(([, v]) => Number.isFinite(v)).map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`);
    svg.append(element("path", { class: faint ? `${kind} faint` : kind, d: d.join("") }));
    for (const [a, b] of dots ?? []) if (Number.isFinite(b)) svg.append(element("circle", { class: kind, cx: x(a), cy: y(b), r: 2.5 }));
    if (name) {
      const [a, b] = points[Math.floor(points.length / 4)];
      const rises = points.at(-1)[1] > b;
      svg.append(element("text", { class: kind, x: x(a) + 10, y: y(b) + (rises ? 16 : -6) }, name));
    }
  }
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  figure.append(caption, svg);
  return figure;
}
