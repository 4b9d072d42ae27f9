// The server's API, as the other modules call it.

/** An answer that is an error, in the server's words. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const KEY = "langevin-api-key";
const storedKey = () => sessionStorage.getItem(KEY);

/** A key as the server compares it, byte by byte in UTF-8; a header of `fetch` has a letter for each byte. */
const asBytes = (key) => String.fromCharCode(...new TextEncoder().encode(key));

/** The question for the key that is open, which all calls share that want it. */
let asking = null;

/** Asks for the key, which is kept for this tab. */
function askKey(wasWrong) {
  asking ??= ask(wasWrong).finally(() => (asking = null));
  return asking;
}

async function ask(wasWrong) {
  const dialog = document.getElementById("key");
  const input = dialog.querySelector("input");
  const wrong = document.getElementById("key-wrong");
  wrong.textContent = wasWrong ? "That key was not right." : "";
  wrong.hidden = !wasWrong;
  input.setAttribute("aria-invalid", wasWrong);
  // Escape leaves it empty.
  dialog.returnValue = "";
  dialog.showModal();
  input.select();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "key") throw new Refused("This server draws for whoever has its API key, and none was given.", 401);
  sessionStorage.setItem(KEY, input.value);
  input.value = "";
}

/** Calls the API; asks for the key where the server wants one. */
export async function call(path, options = {}) {
  const key = storedKey();
  const headers = key ? { ...options.headers, Authorization: `Bearer ${asBytes(key)}` } : options.headers;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Is it still running?", 0);
  }
  if (response.status === 401) {
    // Another call may have been told the key in the meantime.
    if (storedKey() === key) await askKey(key !== null);
    return call(path, options);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Refused(sentence(body.error ?? `The server answered ${response.status}.`), response.status);
  }
  return response;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

export const getJson = async (path) => (await call(path)).json();

/** A picture of the server as an address for an <img>, which could not send the key itself. */
export async function pictureUrl(path) {
  return URL.createObjectURL(await (await call(path)).blob());
}

function post(request, accept, signal) {
  const init = { method: "POST", signal, body: JSON.stringify(request) };
  return call("/api/generate", { ...init, headers: { "Content-Type": "application/json", Accept: accept } });
}

/** The denoising of a request as a GIF. */
export const gif = async (request, signal) => (await post(request, "image/gif", signal)).blob();

/** Draws, and yields what the server says on the way as [event, data]. */
export async function* generate(request, signal) {
  const response = await post(request, "text/event-stream", signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const field = (name) => event.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data") !== undefined) yield [field("event"), JSON.parse(field("data"))];
    }
  }
}
