const axis = (title, more) => ({
  title: { text: title, font: { size: 12 }, standoff: 8 }, gridcolor: look().line, linecolor: look().line, zeroline: false,
  automargin: true, tickfont: { size: 11 }, ...more,
});
const layout = (x, y, more) => ({
  height: 270, margin: { l: 46, r: 10, t: 8, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: { color: look().ink, family: "system-ui, sans-serif", size: 12 }, showlegend: false, hovermode: "closest",
  hoverlabel: { align: "left" }, dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false, uirevision: "stay", xaxis: x, yaxis: y, ...more,
});
const powers = (low, high) => {
  const values = [];
  for (let p = Math.ceil(Math.log10(low)); p <= Math.floor(Math.log10(high) + 1e-9); p++) values.push(10 ** p);
  return values;
};

// ---- over steps

const steps = runs.flatMap((run) => run.steps);
const longest = Math.max(...steps);
const shortest = Math.min(...steps.filter((s) => s > 0), longest);
const halves = runs.filter((run) => run.steps.length > 3).map((run) => run.steps[Math.floor(run.steps.length / 2)] / run.steps.at(-1));
const logSteps = longest >= 30 * shortest && halves.length > 0 && Math.max(...halves) < 0.35;
const start = shortest / 2.5; // position of step 0 on a log axis
const onAxis = (step) => (logSteps && step === 0 ? start : step);
const stepAxis = () => {
  if (!logSteps) return axis("step", { rangemode: "tozero" });
  const ticks = powers(shortest, longest);
  const names = ticks.map((t) => (t >= 1e6 ? `${t / 1e6}M` : t >= 1e4 ? `${t / 1e3}k` : t.toLocaleString("en")));
  return axis("step", { type: "log", tickvals: [start, ...ticks], ticktext: ["0", ...names], range: [Math.log10(start * 0.9), Math.log10(longest * 1.15)] });
};
const hover = "%{text}<br>step %{customdata}: %{y:.4~g}<extra></extra>";

/** A line and the band behind it, with gaps where the band is not known. */
const banded = (x, middle, low, high, r, text, more) => {
  const traces = [];
  let from = 0;
  for (let k = 0; k <= x.length; k++) {
    if (k < x.length && low[k] !== null && high[k] !== null) continue;
    if (k - from > 1) {
      const some = x.slice(from, k);
      traces.push({ x: [...some, ...some.slice().reverse()], y: [...high.slice(from, k), ...low.slice(from, k).reverse()], fill: "toself", fillcolor: veil(colour(r)), mode: "lines", line: { width: 0 }, hoverinfo: "skip" });
    }
    from = k + 1;
  }
  const ones = x.length === 1 ? "markers" : "lines";
  traces.push({ x, y: middle, mode: ones, line: { color: colour(r), dash: dash(r), width: 2 }, marker: { color: colour(r), size: 7 }, text: x.map(() => text), connectgaps: false, ...more });
  return traces;
};
const around = (middle, spread, factor, sign) => middle.map((m, k) => (m === null || spread?.[k] == null ? null : m + sign * factor * spread[k]));

const overSteps = (name, more = {}) => () => {
  const traces = [];
  const chosen = new Set(shown());
  const others = runs.map((_, r) => r).filter((r) => !chosen.has(r) && runs[r].values[name]);
  if (others.length) { // all of them in one trace, with gaps in between
    const x = [], y = [], text = [], at = [];
    for (const r of others) {
      const label = plain(runs[r].name);
      runs[r].steps.forEach((s, k) => { x.push(onAxis(s)); y.push(value(r, name, k)); text.push(label); at.push(s.toLocaleString("en")); });
      x.push(null); y.push(null); text.push(""); at.push("");
    }
    traces.push({ x, y, text, customdata: at, mode: "lines", line: { color: look().soft, width: 1 }, opacity: 0.4, hovertemplate: hover });
  }
  for (const r of chosen) {
    const run = runs[r], middle = run.values[name];
    if (!middle) continue;
    const x = run.steps.map(onAxis), customdata = run.steps.map((s) => s.toLocaleString("en"));
    const several = run.seeds > 1;
    const corrected = several ? middle : run.values[`${name}_corrected`] ?? [];
    const spread = several ? run.sd?.[name] : run.values[`${name}_stderr`];
    const factor = several ? 1 : 1.96;
    traces.push(...banded(x, middle, around(corrected, spread, factor, -1), around(corrected, spread, factor, 1), r, plain(run.name), { customdata, hovertemplate: hover }));
    if (more.reference && run.values.isotropic) traces.push({ x, y: run.values.isotropic, mode: "lines", line: { color: colour(r), width: 1.2, dash: "dot" }, opacity: 0.8, text: x.map(() => `${plain(run.name)}, structureless features`), customdata, hovertemplate: hover });
  }
  const known = traces.flatMap((t) => t.y).filter((v) => v !== null);
  const low = Math.min(...known), high = Math.max(...known);
  const y = more.log && low > 0 ? axis("", { type: "log", exponentformat: "power", dtick: high > 30 * low ? 1 : high > 5 * low ? "D2" : "D1" }) : axis("", { rangemode: "tozero", ...more.y });
  const shapes = [{ type: "line", x0: onAxis(state.step), x1: onAxis(state.step), y0: 0, y1: 1, yref: "paper", line: { color: look().soft, width: 1 } }];
  return [traces, layout(stepAxis(), y, { shapes, height: more.height ?? 250 })];
};

// ---- the curves

const featureAxis = (widest) => axis("feature k, strongest first", { type: "log", tickvals: powers(1, widest), range: [-0.05, Math.log10(widest * 1.1)] });
const curvePanel = (name, y) => () => {
  const traces = [], shapes = [];
  let widest = 1;
  const chosen = shown();
  for (const r of chosen) {
    const curves = curvesOf(r);
    if (!curves[name]) continue;
    widest = Math.max(widest, curves.k.at(-1));
    const at = indexAt(curves.at.map((p) => runs[r].steps[p]), state.step);
    if (at < 0) continue;
    const curve = curves[name][at];
    const text = `${plain(runs[r].name)}`;
    if (trained && chosen.length === 1 && at > 0)
      traces.push({ x: curves.k, y: curves[name][0], mode: "lines", line: { color: look().soft, width: 1.2, dash: "dot" }, text: curves.k.map(() => "at the first evaluation"), hovertemplate: "%{text}<br>k = %{x}: %{y:.3~g}<extra></extra>" });
    const spread = curves[`${name}_sd`]?.[at];
    const floor = around(curve, spread, 1, -1).map((v, k) => (y.type === "log" && v !== null && v <= 0 ? curve[k] * 0.5 : v));
    traces.push(...banded(curves.k, curve, floor, around(curve, spread, 1, 1), r, text, { hovertemplate: "%{text}<br>k = %{x}: %{y:.3~g}<extra></extra>" }));
    const rank = value(r, "output_rank", curves.at[at]);
    if (rank && name !== "contributions" && shapes.every((s) => s.x0 !== rank)) shapes.push({ type: "line", x0: rank, x1: rank, y0: 0, y1: 1, yref: "paper", line: { color: look().soft, width: 1, dash: "dash" } });
  }
  const low = Math.min(1, ...traces.flatMap((t) => t.y).filter((v) => v > 0));
  const ticks = y.type === "log" ? { dtick: low > 0.01 ? "D2" : low > 1e-4 ? 1 : 2 } : {};
  return [traces, layout(featureAxis(widest), axis("", { ...y, ...ticks }), { shapes })];
};

// ---- runs, layers and collapse at one step

const scale = () => {
  const rows = shown();
  const traces = [];
  const add = (name, x, r, row, marker, error) => traces.push({ x: [x], y: [row], mode: "markers", marker: { color: colour(r), line: { color: colour(r), width: 2 }, ...marker }, error_x: error, text: [`${plain(runs[r].name)}<br>${name}`], hovertemplate: "%{text}: %{x:.4f}<extra></extra>" });
  const bar = (r, width) => ({ type: "data", array: [width], color: colour(r), thickness: 1.5, width: 5 });
  rows.forEach((r, k) => {
    const p = index(r), row = -k, several = runs[r].seeds > 1;
    const d = value(r, "low_rank", p), iso = value(r, "isotropic", p), corrected = value(r, "low_rank_corrected", p), error = value(r, "low_rank_stderr", p);
    if (iso !== null) {
      traces.push({ x: [0, iso], y: [row, row], mode: "lines", line: { color: veil(colour(r)), width: 7 }, hoverinfo: "skip" });
      add("structureless features", iso, r, row, { symbol: "line-ns", size: 12, line: { color: look().ink, width: 2 } });
    }
    if (several) { if (d !== null) add("D_LR, mean over seeds ± sd", d, r, row, { size: 8 }, bar(r, runs[r].sd?.low_rank?.[p] ?? 0)); return; }
    if (d !== null) add("D_LR", d, r, row, { symbol: "circle-open", size: 12 });
    if (corrected !== null) add("bias-corrected, 95 %", corrected, r, row, { size: 6 }, error === null ? undefined : bar(r, 1.96 * error));
  });
  const narrow = innerWidth < 640;
  const y = axis("", { tickvals: rows.map((_, k) => -k), ticktext: rows.map((r) => plain(runs[r].name, narrow ? 14 : 36)), range: [0.6 - rows.length, 0.6], showgrid: false, fixedrange: true });
  return [traces, layout(axis("D_LR: 0 rich → lazier", { range: [-0.02, 1.02] }), y, { height: 70 + 34 * rows.length })];
};

const layers = () => {
  const base = shown().find((r) => runs[r].layers.length > 0);
  if (base === undefined) return [[], layout(axis(""), axis(""))];
  const names = runs[base].layers;
  const alike = shown().filter((r) => runs[r].layers.join("\0") === names.join("\0"));
  const x = names.map((_, k) => k);
  const traces = [];
  for (const r of alike) {
    const run = runs[r], text = names.map((n) => `${plain(run.name)}<br>${plain(n || "(the model)")}`);
    const middle = run.layer_values.map((n) => value(r, n, index(r)));
    const spread = run.seeds > 1 ? run.layer_values.map((n) => run.sd?.[n]?.[index(r)] ?? 0) : run.error;
    const error_y = spread && { type: "data", array: spread, color: colour(r), thickness: 1.4, width: 4 };
    traces.push({ x, y: middle, error_y, text, mode: "lines+markers", line: { color: colour(r), dash: dash(r), width: 2 }, marker: { color: colour(r), size: 7 }, hovertemplate: "%{text}: %{y:.4f}<extra></extra>" });
    if (run.balanced) traces.push({ x, y: run.balanced, text, mode: "lines", line: { color: colour(r), dash: "dash", width: 1.2 }, hovertemplate: "%{text}, balanced: %{y:.4f}<extra></extra>" });
  }
  const shapes = (runs[base].isotropic ?? []).map((v, k) => ({ type: "line", x0: k - 0.12, x1: k + 0.12, y0: v, y1: v, line: { color: look().soft, width: 2 } }));
  const stride = Math.ceil(names.length / (innerWidth < 640 ? 12 : 40));
  const labelled = x.filter((k) => k % stride === 0);
  const ticks = axis("layer (measured at its input)", { tickvals: labelled, ticktext: labelled.map((k) => plain(names[k] || "(the model)", 22)), range: [-0.4, names.length - 0.6], tickangle: names.length > 6 ? -60 : "auto" });
  return [traces, layout(ticks, axis("", { range: [-0.03, 1.03] }), { shapes, height: 330 })];
};

const collapse = () => {
  const names = collapsed.filter((n) => shown().some((r) => value(r, n, index(r)) !== null)).reverse();
  const chosen = shown();
  const traces = chosen.map((r, k) => {
    const values = names.map((n) => value(r, n, index(r)));
    const y = names.map((_, j) => j + (chosen.length > 1 ? 0.5 * (0.5 - (k + 0.5) / chosen.length) : 0));
    return { x: values.map((v) => (v > 0 ? v : null)), y, mode: "markers", marker: { color: colour(r), size: 10, symbol: slot(r) % 2 ? "diamond" : "circle" }, text: names.map((n) => `${plain(runs[r].name)}<br>${plain(data.labels[n])}`), hovertemplate: "%{text}: %{x:.4~g}<extra></extra>" };
  });
  const zeros = chosen.flatMap((r) => names.filter((n) => value(r, n, index(r)) === 0).map((n) => `${data.symbols[n]} of ${short(runs[r].name, 30)}`));
  const y = axis("", { tickvals: names.map((_, j) => j), ticktext: names.map((n) => plain(data.labels[n])), range: [-0.6, names.length - 0.4], fixedrange: true });
  return [traces, layout(axis("log scale", { type: "log" }), y, { height: 90 + 40 * names.length }), zeros.length ? `Exactly 0, which a log axis cannot show: ${zeros.slice(0, 8).join("; ")}${zeros.length > 8 ? " …" : ""}.` : ""];
};
