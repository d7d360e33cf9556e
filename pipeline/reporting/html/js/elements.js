"use strict";
// Elements of the page. Texts of the input are only ever set as text, never as HTML.

/** An element with properties, attributes (data-, aria-) and children; strings become text. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list" && name !== "style") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

/** A labelled choice; `choices` are [value, text]. */
function choice(label, choices, onchange, value) {
  const options = choices.map(([value, text]) => element("option", { value }, text));
  const select = element("select", { onchange: (event) => onchange(event.target.value) }, options);
  if (value !== undefined) select.value = value;
  return element("label", {}, label, select);
}

function dot(colour) {
  const made = element("i", { className: "dot" });
  made.style.background = colour;
  return made;
}

/** A table of rows of cells; a cell is a text, a number's text as {num}, or a node. */
function plainTable(header, rows) {
  const cell = (tag) => (value) => {
    if (value !== null && typeof value === "object" && "num" in value && !(value instanceof Node)) {
      return element(tag, { className: "num" }, value.num);
    }
    return element(tag, { className: "wrap" }, value);
  };
  return element(
    "div",
    { className: "scroll" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, header.map(cell("th")))),
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map(cell("td"))))),
    ),
  );
}

function formatDuration(seconds) {
  if (Number.isNaN(seconds)) return "–";
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  return `${(minutes / 60).toFixed(1)} h`;
}

function formatCount(value) {
  return Number.isNaN(value) ? "–" : value.toLocaleString("en");
}

/** Offers a text as a file. */
function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function csvCell(value) {
  if (value === null || value === undefined || (typeof value === "number" && Number.isNaN(value))) return "";
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function toCsv(header, rows) {
  return [header, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

/** Calls a function once no further call has come for a moment. */
function debounced(callback, milliseconds = 200) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => callback(...values), milliseconds);
  };
}
