// The data of the page and the looks of its runs. Names of runs are foreign text: they pass through textContent or plain() alone.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("overview").textContent);
const runs = data.runs;
const MANY = 12; // as many runs can all have a colour: six colours, solid and dashed
const DASHES = ["solid", "dash"];
const trained = runs.some((run) => run.steps.length > 1);
const state = { show: runs.length <= MANY ? -1 : 0, compare: -1, step: 0, measure: null };
const parsed = new Map();
const collapsed = Object.keys(data.groups).filter((name) => data.groups[name] === "collapse");

// ---- data

const curvesOf = (r) => {
  if (!parsed.has(r)) parsed.set(r, JSON.parse($(`curves-${r}`).textContent));
  return parsed.get(r);
};
const shown = () => (state.show < 0 ? runs.map((_, r) => r) : [...new Set([state.show, state.compare])].filter((r) => r >= 0));
const value = (r, name, index) => runs[r].values[name]?.[index] ?? null;
/** The index of the last step that is not after `step`; -1 before the first. */
const indexAt = (steps, step) => steps.filter((s) => s <= step).length - 1;
const stepsShown = () => [...new Set(shown().flatMap((r) => runs[r].steps))].sort((a, b) => a - b);
const index = (r) => indexAt(runs[r].steps, state.step);
const number = (x) => (x === null ? "not measured" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4 ? String(Number(x.toPrecision(4))) : x.toPrecision(3));

// ---- looks

const dark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const look = () => (printing ? { ink: "#000", soft: "#333", line: "#bbb" } : { ink: css("--ink"), soft: css("--soft"), line: css("--line") });
const slot = (r) => (state.show < 0 ? r : r === state.show ? 0 : 1);
const colour = (r) => {
  const c = data.colours[slot(r) % data.colours.length];
  return c === "#0072B2" && dark.matches && !printing ? "#3D9BD9" : c; // the same hue, legible on black
};
const dash = (r) => DASHES[Math.floor(slot(r) / data.colours.length) % DASHES.length];
const veil = (hex) => `rgba(${[1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)).join()},0.18)`;
const short = (name, most = 40) => (name.length <= most ? name : `${name.slice(0, most / 2)}…${name.slice(1 - most / 2)}`);
/** Text for plotly, which reads tags, entities and formulas in its texts. */
const plain = (name, most) => short(name, most).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");
