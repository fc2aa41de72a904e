// Building the document without HTML strings: nothing that a device or a person wrote can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `el("p", {class: "quiet", hidden: true, on: {click}}, "text", child)`. Null children are left out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Whether keys are being typed into a field. */
export const isTyping = (target) => target instanceof Element && target.closest("input, textarea, select") !== null;

// One shape a level, so that colour is never the only sign.
const SHAPES = {
  4: "M6 1h8l5 5v8l-5 5H6l-5-5V6z",
  3: "M10 1.5 19.2 18H.8z",
  2: "M10 .8 19.2 10 10 19.2.8 10z",
  1: "M10 2a8 8 0 1 1 0 16 8 8 0 0 1 0-16z",
};

/** The shape of a level. */
export function shape(level) {
  return svg("svg", { class: "shape", viewBox: "0 0 20 20", "aria-hidden": "true" }, svg("path", { d: SHAPES[level] }));
}
