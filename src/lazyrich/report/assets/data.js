// The data of the page and the looks of its runs. Names of runs are foreign text: they pass through textContent or plain() alone.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("overview").textContent);
const runs = data.runs;
const MOST = 24; // runs with looks of their own: six colours in four styles
const BANDS = 6; // runs up to which errors are drawn as bands
const FAR = 0.5; // of the axis of steps: a line is dotted where nothing was measured for longer
const START = 10 ** -0.4; // of the first step: where step 0 is on a log axis
const DASHES = ["solid", "dash", "dashdot", "longdash"]; // dotted is for what was not measured and for references
const STROKES = ["none", "6 3", "6 3 1.5 3", "11 3"];
const trained = runs.some((run) => run.steps.length > 1);
const state = { experiment: runs[0].experiment, words: [], on: new Set(), step: 0 };
const parsed = new Map();
const collapsed = Object.keys(data.groups).filter((name) => data.groups[name] === "collapse");

// ---- data

const curvesOf = (r) => {
  if (!parsed.has(r)) parsed.set(r, JSON.parse($(`curves-${r}`).textContent));
  return parsed.get(r);
};
/** The runs of the experiment, those of them whose names have all words of the filter, and those that are drawn. */
const pool = () => runs.map((_, r) => r).filter((r) => runs[r].experiment === state.experiment);
const matching = () => pool().filter((r) => state.words.every((word) => runs[r].name.toLowerCase().includes(word)));
const shown = () => matching().filter((r) => state.on.has(r));
const value = (r, name, index) => runs[r].values[name]?.[index] ?? null;
/** The index of the last step that is not after `step`; -1 before the first. */
const indexAt = (steps, step) => steps.filter((s) => s <= step).length - 1;
const stepsShown = () => [...new Set(shown().flatMap((r) => runs[r].steps))].sort((a, b) => a - b);
const index = (r) => indexAt(runs[r].steps, state.step);
const number = (x) => (x === null ? "not measured" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4 ? String(Number(x.toPrecision(4))) : x.toPrecision(3));

// ---- looks

let printing = false; // or exporting
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const look = () => (printing ? { ink: "#000", soft: "#555", line: "#ccc" } : { ink: css("--ink"), soft: css("--soft"), line: css("--line") });
const style = (r) => (runs[r].slot + Math.floor(runs[r].slot / 12)) % DASHES.length;
const colour = (r) => data.colours[runs[r].slot % data.colours.length];
const dash = (r) => DASHES[style(r)];
const veil = (hex) => `rgba(${[1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)).join()},0.18)`;
const short = (name, most = 40) => (name.length <= most ? name : `${name.slice(0, most / 2)}…${name.slice(1 - most / 2)}`);
/** Text for plotly, which reads tags, entities and formulas in its texts. */
const plain = (name, most) => short(name, most).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");
/** An element with these properties and children; a child that is text stays text. */
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const swatch = (r) => {
  const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg"), line = document.createElementNS(ns, "line");
  for (const [k, v] of Object.entries({ width: 26, height: 10, "aria-hidden": "true", class: "swatch" })) svg.setAttribute(k, v);
  for (const [k, v] of Object.entries({ x1: 0, x2: 26, y1: 5, y2: 5, stroke: colour(r), "stroke-width": 3, "stroke-dasharray": STROKES[style(r)] })) line.setAttribute(k, v);
  svg.append(line);
  return svg;
};
