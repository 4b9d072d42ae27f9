// The API's description, as a page.

const description = await (await fetch("/api/openapi.json")).json();
const main = document.getElementById("operations");
document.getElementById("about").textContent = description.info.description;
document.getElementById("origin").textContent = location.origin;

function element(tag, content, ...children) {
  const made = document.createElement(tag);
  if (content) made.textContent = content;
  made.append(...children);
  return made;
}

/** A text whose `code` is shown as such. */
function prose(tag, text) {
  const parts = text.split("`").map((part, i) => (i % 2 ? element("code", part) : part));
  return element(tag, "", ...parts);
}

const resolve = (schema) => (schema.$ref ? description.components.schemas[schema.$ref.split("/").at(-1)] : schema);

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.oneOf) return schema.oneOf.map(kind).join(" or ");
  if (schema.contentEncoding) return "picture in base64, or a list of them";
  if (schema.enum) return schema.enum.filter((one) => one !== null).join(", ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return `${[schema.type].flat().join(" or ")}${range(schema)}`;
}

/** Which numbers there may be. */
function range({ minimum, exclusiveMinimum, maximum, exclusiveMaximum }) {
  const least = minimum !== undefined ? `from ${minimum}` : exclusiveMinimum !== undefined ? `above ${exclusiveMinimum}` : "";
  const most = maximum !== undefined ? `to ${maximum}` : exclusiveMaximum !== undefined ? `to below ${exclusiveMaximum}` : "";
  const whole = [least, most].filter(Boolean).join(" ");
  return whole && `, ${whole}`;
}

function table(caption, rows) {
  const body = element("tbody");
  for (const row of rows) body.append(element("tr", "", ...row.map((cell, i) => prose(i ? "td" : "th", cell))));
  body.querySelectorAll("th").forEach((cell) => (cell.scope = "row"));
  const made = element("table", "", element("caption", caption), body);
  const holder = element("div", "", made);
  Object.assign(holder, { className: "table", tabIndex: 0 });
  return holder;
}

const fields = (schema) => Object.entries(resolve(schema).properties ?? {}).map(([name, field]) => [name, kind(field), field.description ?? ""]);

for (const [path, methods] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const title = element("h3", "", Object.assign(element("span", method.toUpperCase()), { className: "method" }), path);
    const section = element("section", "", title, prose("p", operation.description ?? operation.summary));
    const parameters = operation.parameters ?? [];
    if (parameters.length) section.append(table("Parameters", parameters.map((one) => [one.name, kind(one.schema), one.description])));
    const bodies = operation.requestBody?.content ?? {};
    const body = bodies["application/json"]?.schema;
    const files = Object.keys(bodies).filter((kind) => kind !== "application/json");
    if (files.length) section.append(prose("p", `The body is a file: ${files.join(", ")}.`));
    if (body) section.append(table("Body", fields(body)));
    const responses = Object.entries(operation.responses);
    section.append(table("Answers", responses.map(([status, { content, description }]) => [status, Object.keys(content ?? {}).join(", "), description])));
    const json = operation.responses["200"]?.content?.["application/json"]?.schema;
    if (json && fields(json).length) section.append(table("Fields of the answer", fields(json)));
    main.append(section);
  }
}
