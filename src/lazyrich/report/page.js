"use strict";
// Draws the panels from the data beside it. Names of runs are foreign text: they go through textContent or plain() alone.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("overview").textContent);
  const runs = data.runs;
  const MANY = 12; // runs that can all stand in colour: six colours, solid and dashed
  const DASHES = ["solid", "dash"];
  const trained = runs.some((run) => run.steps.length > 1);
  const state = { show: runs.length <= MANY ? -1 : 0, beside: -1, step: 0, measure: null };
  const held = new Map();
  const collapsed = Object.keys(data.groups).filter((name) => data.groups[name] === "collapse");

  // ---- data

  const curvesOf = (r) => {
    if (!held.has(r)) held.set(r, JSON.parse($(`curves-${r}`).textContent));
    return held.get(r);
  };
  const shown = () => (state.show < 0 ? runs.map((_, r) => r) : [...new Set([state.show, state.beside])].filter((r) => r >= 0));
  const value = (r, name, place) => runs[r].values[name]?.[place] ?? null;
  const last = (r) => runs[r].steps.length - 1;
  /** The place of the last step not after `step`; -1 before the first. */
  const placeAt = (steps, step) => steps.filter((s) => s <= step).length - 1;
  const stepsShown = () => [...new Set(shown().flatMap((r) => runs[r].steps))].sort((a, b) => a - b);
  const place = (r) => placeAt(runs[r].steps, state.step);
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
  /** Text for plotly, which reads tags, entities and formulas in what it is given. */
  const plain = (name, most) => short(name, most).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");

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
  const start = shortest / 2.5; // where step 0 stands on a log axis
  const onAxis = (step) => (logSteps && step === 0 ? start : step);
  const stepAxis = () => {
    if (!logSteps) return axis("step", { rangemode: "tozero" });
    const ticks = powers(shortest, longest);
    const names = ticks.map((t) => (t >= 1e6 ? `${t / 1e6}M` : t >= 1e4 ? `${t / 1e3}k` : t.toLocaleString("en")));
    return axis("step", { type: "log", tickvals: [start, ...ticks], ticktext: ["0", ...names], range: [Math.log10(start * 0.9), Math.log10(longest * 1.15)] });
  };
  const hover = "%{text}<br>step %{customdata}: %{y:.4~g}<extra></extra>";

  /** A line, and its band below it; a gap where the band is not known. */
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
    if (others.length) { // all in one trace, with gaps between
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
      const held = curvesOf(r);
      if (!held[name]) continue;
      widest = Math.max(widest, held.k.at(-1));
      const at = placeAt(held.at.map((p) => runs[r].steps[p]), state.step);
      if (at < 0) continue;
      const curve = held[name][at];
      const text = `${plain(runs[r].name)}`;
      if (trained && chosen.length === 1 && at > 0)
        traces.push({ x: held.k, y: held[name][0], mode: "lines", line: { color: look().soft, width: 1.2, dash: "dot" }, text: held.k.map(() => "at the first evaluation"), hovertemplate: "%{text}<br>k = %{x}: %{y:.3~g}<extra></extra>" });
      const spread = held[`${name}_sd`]?.[at];
      const floor = around(curve, spread, 1, -1).map((v, k) => (y.type === "log" && v !== null && v <= 0 ? curve[k] * 0.5 : v));
      traces.push(...banded(held.k, curve, floor, around(curve, spread, 1, 1), r, text, { hovertemplate: "%{text}<br>k = %{x}: %{y:.3~g}<extra></extra>" }));
      const rank = value(r, "output_rank", held.at[at]);
      if (rank && name !== "contributions" && shapes.every((s) => s.x0 !== rank)) shapes.push({ type: "line", x0: rank, x1: rank, y0: 0, y1: 1, yref: "paper", line: { color: look().soft, width: 1, dash: "dash" } });
    }
    const low = Math.min(1, ...traces.flatMap((t) => t.y).filter((v) => v > 0));
    const ticks = y.type === "log" ? { dtick: low > 0.01 ? "D2" : low > 1e-4 ? 1 : 2 } : {};
    return [traces, layout(featureAxis(widest), axis("", { ...y, ...ticks }), { shapes })];
  };

  // ---- what stands beside each other at one moment

  const scale = () => {
    const rows = shown();
    const traces = [];
    const add = (name, x, r, row, marker, error) => traces.push({ x: [x], y: [row], mode: "markers", marker: { color: colour(r), line: { color: colour(r), width: 2 }, ...marker }, error_x: error, text: [`${plain(runs[r].name)}<br>${name}`], hovertemplate: "%{text}: %{x:.4f}<extra></extra>" });
    const bar = (r, width) => ({ type: "data", array: [width], color: colour(r), thickness: 1.5, width: 5 });
    rows.forEach((r, k) => {
      const p = place(r), row = -k, several = runs[r].seeds > 1;
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
      const middle = run.layer_values.map((n) => value(r, n, place(r)));
      const spread = run.seeds > 1 ? run.layer_values.map((n) => run.sd?.[n]?.[place(r)] ?? 0) : run.error;
      const error_y = spread && { type: "data", array: spread, color: colour(r), thickness: 1.4, width: 4 };
      traces.push({ x, y: middle, error_y, text, mode: "lines+markers", line: { color: colour(r), dash: dash(r), width: 2 }, marker: { color: colour(r), size: 7 }, hovertemplate: "%{text}: %{y:.4f}<extra></extra>" });
      if (run.balanced) traces.push({ x, y: run.balanced, text, mode: "lines", line: { color: colour(r), dash: "dash", width: 1.2 }, hovertemplate: "%{text}, balanced: %{y:.4f}<extra></extra>" });
    }
    const shapes = (runs[base].isotropic ?? []).map((v, k) => ({ type: "line", x0: k - 0.12, x1: k + 0.12, y0: v, y1: v, line: { color: look().soft, width: 2 } }));
    const every = Math.ceil(names.length / (innerWidth < 640 ? 12 : 40));
    const kept = x.filter((k) => k % every === 0);
    const ticks = axis("layer, by what it sees", { tickvals: kept, ticktext: kept.map((k) => plain(names[k] || "(the model)", 22)), range: [-0.4, names.length - 0.6], tickangle: names.length > 6 ? -60 : "auto" });
    return [traces, layout(ticks, axis("", { range: [-0.03, 1.03] }), { shapes, height: 330 })];
  };

  const collapse = () => {
    const names = collapsed.filter((n) => shown().some((r) => value(r, n, place(r)) !== null)).reverse();
    const chosen = shown();
    const traces = chosen.map((r, k) => {
      const given = names.map((n) => value(r, n, place(r)));
      const y = names.map((_, j) => j + (chosen.length > 1 ? 0.5 * (0.5 - (k + 0.5) / chosen.length) : 0));
      return { x: given.map((v) => (v > 0 ? v : null)), y, mode: "markers", marker: { color: colour(r), size: 10, symbol: slot(r) % 2 ? "diamond" : "circle" }, text: names.map((n) => `${plain(runs[r].name)}<br>${plain(data.labels[n])}`), hovertemplate: "%{text}: %{x:.4~g}<extra></extra>" };
    });
    const zeros = chosen.flatMap((r) => names.filter((n) => value(r, n, place(r)) === 0).map((n) => `${data.symbols[n]} of ${short(runs[r].name, 30)}`));
    const y = axis("", { tickvals: names.map((_, j) => j), ticktext: names.map((n) => plain(data.labels[n])), range: [-0.6, names.length - 0.4], fixedrange: true });
    return [traces, layout(axis("log scale", { type: "log" }), y, { height: 90 + 40 * names.length }), zeros.length ? `Exactly 0, where a log axis does not reach: ${zeros.slice(0, 8).join("; ")}${zeros.length > 8 ? " …" : ""}.` : ""];
  };

  // ---- panels

  const any = (name) => runs.some((run) => run.values[name]);
  const moves = (name) => trained && runs.some((run) => run.values[name]?.filter((v) => v !== null).length > 1);
  const has = (name) => runs.some((_, r) => $(`curves-${r}`).textContent.includes(`"${name}":`));
  const unit = { range: [-0.03, 1.05] };
  const panels = new Map();
  const panel = (name, wanted, draw) => {
    const section = document.querySelector(`[data-panel="${name}"]`);
    if (section === null) return; // a measure that the template has no section for is among "any measure"
    section.hidden = !wanted;
    if (!wanted) return;
    const plot = section.querySelector(".plot");
    plot.setAttribute("role", "img");
    panels.set(name, { section, plot, draw, stale: true, near: false });
  };
  panel("scale", any("low_rank"), scale);
  panel("time", moves("low_rank"), overSteps("low_rank", { reference: true, y: { range: [-0.02, 1.02] }, height: 330 }));
  panel("train_accuracy", moves("train_accuracy"), overSteps("train_accuracy", { y: { range: [-0.02, 1.03], tickformat: ".0%" } }));
  panel("test_accuracy", moves("test_accuracy"), overSteps("test_accuracy", { y: { range: [-0.02, 1.03], tickformat: ".0%" } }));
  panel("relative_eigenvalues", has("relative_eigenvalues"), curvePanel("relative_eigenvalues", { type: "log", exponentformat: "power" }));
  for (const name of ["utilization", "quality", "contributions"]) panel(name, has(name), curvePanel(name, unit));
  panel("layers", runs.some((run) => run.layers.length > 1), layers);
  const collapsing = collapsed.some(moves);
  panel("collapse", collapsed.length > 0 && !collapsing, collapse);
  for (const name of collapsed) panel(name, moves(name), overSteps(name, { log: true }));
  const others = Object.keys(data.labels).filter((n) => moves(n) && n !== "low_rank" && data.groups[n] !== "data");
  state.measure = others.find((n) => n === "balanced") ?? others[0];
  panel("other", others.length > 0, () => overSteps(state.measure, { height: 300 })());
  document.querySelector('[data-part="curves"]').hidden = !["relative_eigenvalues", "utilization", "quality", "contributions"].some((n) => panels.has(n));
  document.querySelector('[data-part="collapse"]').hidden = !collapsing;

  const absent = [
    [!has("relative_eigenvalues"), "There are no curves: they were not kept (Monitor keeps them from preset=\"standard\")."],
    [has("relative_eigenvalues") && !has("quality"), "There is no quality curve: no targets were given."],
    [!collapsed.length, "There are no collapse measures: they need class labels, and of a Monitor preset=\"standard\"."],
    [!panels.has("layers"), "There is no profile over layers: measure with layers=\"all\"."],
    [!any("train_accuracy") && !any("test_accuracy") && trained, "Accuracies were not given."],
    [data.thinned, "Not every evaluation is drawn with its curves, but some spread evenly over each run."],
  ].filter(([is]) => is).map(([, text]) => text);
  $("absent").textContent = absent.join(" ");
  $("absent").hidden = absent.length === 0;

  const config = { displayModeBar: false, responsive: true };
  const draw = (p) => {
    const [traces, form, note] = p.draw();
    p.stale = false;
    Plotly.react(p.plot, traces, form, config);
    if (note !== undefined) {
      if (!p.note) p.section.append((p.note = document.createElement("p")));
      p.note.textContent = note;
    }
    p.plot.setAttribute("aria-label", `${p.section.querySelector("h2").textContent}; the numbers are in the table below`);
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const p = [...panels.values()].find((q) => q.section === entry.target);
      p.near = entry.isIntersecting;
      if (p.near && p.stale) draw(p);
    }
  }, { rootMargin: "300px" });
  let due = 0;
  const redraw = () => {
    for (const p of panels.values()) p.stale = true;
    cancelAnimationFrame(due);
    due = requestAnimationFrame(() => { for (const p of panels.values()) if (p.near && p.stale) draw(p); });
  };

  // ---- controls

  const option = (select, text, number) => { const o = new Option(short(text, 60), number); o.title = text; select.add(o); };
  const fill = () => {
    if (runs.length > 1 && runs.length <= MANY) option($("show"), `all ${runs.length} runs`, -1);
    runs.forEach((run, r) => option($("show"), run.name, r));
    option($("beside"), "none", -1);
    runs.forEach((run, r) => option($("beside"), run.name, r));
    $("show").value = state.show;
    $("show-label").hidden = runs.length < 2;
    others.forEach((name) => option($("measure"), data.labels[name], name));
    $("measure").value = state.measure;
  };
  const legend = () => {
    $("legend").replaceChildren(...(runs.length < 2 ? [] : shown()).map((r) => {
      const item = document.createElement("li"), name = document.createElement("span");
      const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg"), line = document.createElementNS(ns, "line");
      for (const [k, v] of Object.entries({ width: 26, height: 10, "aria-hidden": "true" })) svg.setAttribute(k, v);
      for (const [k, v] of Object.entries({ x1: 0, x2: 26, y1: 5, y2: 5, stroke: colour(r), "stroke-width": 3, "stroke-dasharray": dash(r) === "solid" ? "none" : "6 4" })) line.setAttribute(k, v);
      svg.append(line);
      name.className = "name"; name.textContent = runs[r].name; name.title = runs[r].name;
      item.append(svg, name);
      return item;
    }));
  };
  const slide = () => {
    const all = stepsShown();
    state.step = all[$("step").value] ?? all.at(-1) ?? 0;
    const text = `step ${state.step.toLocaleString("en")}`;
    const values = shown().slice(0, 3).map((r) => `D_LR ${number(value(r, "low_rank", place(r)))}${shown().length > 1 ? ` in ${short(runs[r].name, 30)}` : ""}`);
    $("step").setAttribute("aria-valuetext", `${text}, ${values.join(", ")}`);
    $("step-text").textContent = state.step.toLocaleString("en") + (shown().length === 1 ? `: ${number(value(shown()[0], "low_rank", place(shown()[0])))}` : "");
    document.querySelector(".part .at").textContent = trained ? `at ${text}${shown().length === 1 ? "; dotted: at the first evaluation" : ""}` : "";
    redraw();
  };
  const choose = () => {
    const before = state.step;
    state.show = Number($("show").value);
    state.beside = state.show < 0 ? -1 : Number($("beside").value);
    $("beside-label").hidden = state.show < 0 || runs.length < 2;
    const all = stepsShown();
    $("step").max = Math.max(0, all.length - 1);
    $("step").value = Math.max(0, placeAt(all, before));
    $("step-label").hidden = !trained || all.length < 2;
    legend();
    slide();
  };
  const sortable = (table) => {
    table.querySelectorAll("thead th").forEach((th, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      th.append(button);
      button.addEventListener("click", () => {
        const up = th.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => { const t = row.cells[column].textContent.trim(), n = parseFloat(t.replace(/,/g, "")); return column > 0 && (t === "-" || !Number.isNaN(n)) ? n : t; };
        const order = (a, b) => (typeof a === "number" && typeof b === "number" ? Number.isNaN(a) - Number.isNaN(b) || (up ? a - b : b - a) : (up ? 1 : -1) * String(a).localeCompare(String(b), "en", { numeric: true }));
        table.tBodies[0].append(...[...table.rows].slice(1).map((row) => [key(row), row]).sort(([a], [b]) => order(a, b)).map(([, row]) => row));
      });
    });
  };

  fill();
  state.step = longest;
  $("controls").hidden = runs.length < 2 && !trained;
  choose();
  $("step").addEventListener("input", slide);
  $("show").addEventListener("change", choose);
  $("beside").addEventListener("change", choose);
  $("measure").addEventListener("change", () => { state.measure = $("measure").value; redraw(); });
  document.querySelectorAll("table.many").forEach(sortable);
  for (const p of panels.values()) watcher.observe(p.section);
  dark.addEventListener("change", () => { legend(); redraw(); });
  addEventListener("beforeprint", () => {
    printing = true;
    legend();
    for (const p of panels.values()) {
      draw(p);
      const wide = p.section.classList.contains("wide");
      Plotly.relayout(p.plot, { width: wide ? 660 : 310, autosize: false });
    }
  });
  addEventListener("afterprint", () => {
    printing = false;
    legend();
    for (const p of panels.values()) if (p.plot.layout) Plotly.relayout(p.plot, { width: null, autosize: true });
    redraw();
  });
})();
