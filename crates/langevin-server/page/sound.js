// Sounds as the page plays them: with their waveform.

const wav = (base64) => `data:audio/wav;base64,${base64}`;

/** The samples of a WAV file of this server's: one channel of 16 bits behind 44 bytes. */
function samples(base64) {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  return new Int16Array(bytes.buffer, 44, Math.floor((bytes.length - 44) / 2));
}

/** A picture of how loud a sound is over time. */
function waveform(base64) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 600, height: 64, className: "waveform" });
  canvas.setAttribute("aria-hidden", "true");
  const [context, all] = [canvas.getContext("2d"), samples(base64)];
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent") || "#36c";
  for (let x = 0; x < canvas.width; x++) {
    const part = all.subarray(Math.floor((x * all.length) / canvas.width), Math.floor(((x + 1) * all.length) / canvas.width));
    let [low, high] = [0, 0];
    for (const value of part) [low, high] = [Math.min(low, value), Math.max(high, value)];
    const [top, bottom] = [high, low].map((value) => (0.5 - value / 65536) * canvas.height);
    context.fillRect(x, top, 1, Math.max(1, bottom - top));
  }
  return canvas;
}

/** What plays a sound; `label` says which it is. */
export function player(base64, label) {
  const box = Object.assign(document.createElement("div"), { className: "sound" });
  const audio = Object.assign(document.createElement("audio"), { controls: true, preload: "metadata", src: wav(base64) });
  audio.setAttribute("aria-label", label);
  box.append(waveform(base64), audio);
  return box;
}

/** A link that downloads a sound. */
export function link(base64, name) {
  const made = Object.assign(document.createElement("a"), { href: wav(base64), download: name, textContent: "WAV" });
  made.setAttribute("aria-label", "Download the sound as WAV");
  return made;
}
