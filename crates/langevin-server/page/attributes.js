// What a picture has of the attributes that a model knows: a box for each, and what they come to in one field.

const form = document.getElementById("settings");
const field = (name) => form.elements[name];
const boxes = document.getElementById("attributes");
/** What the field holds where no box is ticked: a picture that has none of them. */
const NONE = "none";

const all = () => [...boxes.querySelectorAll("input")];

/** Where the fieldset is switched off, nothing is said of them. */
function gather() {
  const has = all().filter((box) => box.checked).map((box) => box.value);
  field("attributes").value = field("attributes_on").checked ? has.join(",") || NONE : "";
  for (const box of all()) box.disabled = !field("attributes_on").checked;
}

/** `changed` is called once a box has changed the field. */
export function begin(changed) {
  for (const element of [boxes, field("attributes_on")]) {
    element.addEventListener("change", () => {
      gather();
      changed();
    });
  }
}

/** Offers the attributes of a model, none of them ticked. */
export function fit(names) {
  boxes.replaceChildren(...(names ?? []).map((name) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    label.className = "check";
    Object.assign(box, { type: "checkbox", value: name });
    label.append(box, ` ${name}`);
    return label;
  }));
  set("");
}

/** Ticks those of a list such as `smiling,hat`; what of it there is not. */
export function set(list) {
  const named = list === NONE ? [] : list.split(",").filter((name) => name !== "");
  field("attributes_on").checked = list !== "";
  for (const box of all()) box.checked = named.includes(box.value);
  gather();
  return named.filter((name) => !all().some((box) => box.value === name));
}
