// What each panel draws: { traces, layout, marks: what the marks mean, columns and rows: the same numbers as a table }.

const axis = (title, more) => ({
  title: { text: title, font: { size: 12 }, standoff: 8 }, gridcolor: look().line, linecolor: look().line, zeroline: false,
  automargin: true, tickfont: { size: 11 }, ...more,
});
/** plotly writes the marks 2 and 5 of a log axis as bare digits unless they have a format. */
const logAxis = (title, more) => axis(title, { type: "log", tickformat: ",.6~g", nticks: 5, ...more });
const layout = (x, y, more) => ({
  height: 270, margin: { l: 46, r: 10, t: 8, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: { color: look().ink, family: "system-ui, sans-serif", size: 12 }, showlegend: false, hovermode: "closest",
  hoverlabel: { align: "left" }, dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false, uirevision: "stay", xaxis: x, yaxis: y, ...more,
});
const upright = (x, dash) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: look().soft, width: 1, dash } });
const around = (middle, spread, factor, sign) => middle.map((m, k) => (m === null || spread?.[k] == null ? null : m + sign * factor * spread[k]));
/** A drawing without the columns of its table that are empty. */
const drawing = (traces, form, marks, columns, rows) => {
  const full = columns.map((_, c) => rows.some((row) => row[c] != null));
  const kept = (row) => row.filter((_, c) => full[c]);
  return { traces, layout: form, marks: [...new Set(marks)], columns: kept(columns), rows: rows.map(kept) };
};

// ---- over steps

const timeAxis = () => {
  const steps = pool().flatMap((r) => runs[r].steps);
  const last = Math.max(...steps), first = Math.min(...steps.filter((s) => s > 0), last);
  const log = pool().some((r) => runs[r].log_steps);
  const at = (step) => (log && step === 0 ? first * START : step);
  const place = (step) => (log ? Math.log10(at(step) / (first * START)) / Math.log10(last / (first * START)) : step / last);
  if (!log) return { at, place, form: () => axis("optimizer step", { rangemode: "tozero", tickformat: "," }) };
  const ticks = [0];
  for (let power = 1; power <= last; power *= 10) ticks.push(...(last > 100 * first ? [1] : [1, 2, 5]).map((m) => m * power).filter((t) => t >= first && t <= last));
  const name = (t) => (t >= 1e6 ? `${t / 1e6}M` : t >= 1e4 ? `${t / 1e3}k` : t.toLocaleString("en"));
  const range = [Math.log10(first * START * 0.9), Math.log10(last * 1.15)];
  return { at, place, form: () => axis("optimizer step", { type: "log", tickvals: ticks.map(at), ticktext: ticks.map(name), range }) };
};
let time = timeAxis();
const hover = "%{text}<br>step %{customdata}: %{y:.4~g}<extra></extra>";

/** A line and the band behind it. Between values that are null, and where `place` is far apart, the line is dotted and has no band. */
const banded = (x, middle, low, high, r, more, place) => {
  const known = middle.map((_, k) => k).filter((k) => middle[k] !== null);
  const parts = known.length ? [[]] : [];
  known.forEach((k, j) => {
    if (j && (k - known[j - 1] > 1 || (place && place[k] - place[known[j - 1]] > FAR))) parts.push([]);
    parts.at(-1).push(k);
  });
  const traces = [];
  for (const part of parts) {
    const sure = part.filter((k) => low?.[k] != null && high?.[k] != null), back = [...sure].reverse();
    if (sure.length > 1) traces.push({ x: [...sure, ...back].map((k) => x[k]), y: [...sure.map((k) => high[k]), ...back.map((k) => low[k])], fill: "toself", fillcolor: veil(colour(r)), mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false });
    else for (const k of sure) traces.push({ x: [x[k], x[k]], y: [low[k], high[k]], fill: "toself", mode: "lines", line: { color: veil(colour(r)), width: 6 }, hoverinfo: "skip", showlegend: false });
  }
  const text = plain(runs[r].name);
  const mode = place && known.length <= 40 ? "lines+markers" : known.length === 1 ? "markers" : "lines";
  const broken = (of) => parts.flatMap((part, j) => [...(j ? [null] : []), ...part.map((k) => of[k])]);
  const { customdata, ...rest } = more;
  traces.push({ x: broken(x), y: broken(middle), mode, line: { color: colour(r), dash: dash(r), width: 2 }, marker: { color: colour(r), size: known.length === 1 ? 7 : 4 }, name: plain(runs[r].name, 60), text: broken(x).map(() => text), customdata: customdata && broken(customdata), connectgaps: false, ...rest });
  const gaps = parts.slice(1).flatMap((part, j) => [parts[j].at(-1), part[0], null]);
  if (gaps.length) traces.push({ x: gaps.map((k) => (k === null ? null : x[k])), y: gaps.map((k) => (k === null ? null : middle[k])), mode: "lines", line: { color: colour(r), dash: "dot", width: 2 }, hoverinfo: "skip", showlegend: false, gap: true });
  return traces;
};

const overSteps = (name, more = {}) => () => {
  const chosen = shown(), traces = [], rows = [], marks = [];
  const others = pool().filter((r) => !chosen.includes(r) && runs[r].values[name]);
  if (others.length) { // all of them in one trace, with gaps in between
    const x = [], y = [], text = [], at = [];
    for (const r of others) {
      const label = plain(runs[r].name);
      runs[r].steps.forEach((s, k) => { x.push(time.at(s)); y.push(value(r, name, k)); text.push(label); at.push(s.toLocaleString("en")); });
      x.push(null); y.push(null); text.push(""); at.push("");
    }
    traces.push({ x, y, text, customdata: at, mode: "lines", line: { color: look().soft, width: 1 }, opacity: 0.4, hovertemplate: hover, showlegend: false });
    marks.push("Grey: the other runs.");
  }
  for (const r of chosen) {
    const run = runs[r], middle = run.values[name];
    if (!middle) continue;
    const x = run.steps.map(time.at), place = run.steps.map(time.place), customdata = run.steps.map((s) => s.toLocaleString("en"));
    const several = run.seeds > 1, spread = several ? run.sd?.[name] : run.values[`${name}_stderr`];
    const centre = several ? middle : run.values[`${name}_corrected`] ?? [], factor = several ? 1 : 1.96;
    const low = around(centre, spread, factor, -1), high = around(centre, spread, factor, 1), bands = chosen.length <= BANDS;
    const drawn = banded(x, middle, bands ? low : null, high, r, { customdata, hovertemplate: hover }, place);
    traces.push(...drawn);
    if (drawn.some((t) => t.gap)) marks.push("Dotted: nothing was measured there.");
    if (low.some((v) => v !== null)) marks.push(!bands ? `Bands of errors are drawn for up to ${BANDS} runs.` : several ? "Bands: the mean ± one standard deviation over seeds." : "Bands: the 95 % interval of the value without sampling bias.");
    const reference = more.reference ? run.values.isotropic : undefined;
    if (reference) {
      traces.push({ x, y: reference, mode: "lines", line: { color: colour(r), width: 1 }, opacity: 0.7, text: x.map(() => `${plain(run.name)}, structureless features`), customdata, hovertemplate: hover, showlegend: false });
      marks.push("Thin lines: structureless features; a network that stays near its thin line is lazy.");
    }
    run.steps.forEach((step, k) => rows.push([run.name, step, middle[k], low[k] ?? null, high[k] ?? null, reference?.[k] ?? null]));
  }
  const known = traces.flatMap((t) => t.y).filter((v) => v !== null);
  const title = more.title ?? plain(data.symbols[name]);
  const y = more.log && known.length && Math.min(...known) > 0 ? logAxis(title) : axis(title, { rangemode: "tozero", ...more.y });
  const form = layout(time.form(), y, { shapes: [upright(time.at(state.step))], height: more.height ?? 250 });
  return drawing(traces, form, marks, ["run", "step", data.labels[name], "lower", "upper", "structureless features"], rows);
};

// ---- the curves

const CURVES = { relative_eigenvalues: "relative eigenvalue", utilization: "cumulative utilization", quality: "cumulative quality", contributions: "cumulative contributions" };
const curvePanel = (name) => () => {
  const traces = [], shapes = [], rows = [], marks = [], chosen = shown(), log = name === "relative_eigenvalues";
  const hovertemplate = "%{text}<br>k = %{x}: %{y:.3~g}<extra></extra>";
  let widest = 1;
  for (const r of chosen) {
    const curves = curvesOf(r);
    if (!curves[name]) continue;
    widest = Math.max(widest, curves.k.at(-1));
    const at = indexAt(curves.at.map((p) => runs[r].steps[p]), state.step);
    if (at < 0) continue;
    const curve = curves[name][at];
    if (trained && chosen.length === 1 && at > 0) {
      traces.push({ x: curves.k, y: curves[name][0], mode: "lines", line: { color: look().soft, width: 1.2, dash: "dot" }, name: "first evaluation", text: curves.k.map(() => "at the first evaluation"), hovertemplate });
      marks.push("Dotted: at the first evaluation.");
    }
    const spread = curves[`${name}_sd`]?.[at], high = around(curve, spread, 1, 1);
    const low = around(curve, spread, 1, -1).map((v, k) => (log && v !== null && v <= 0 ? curve[k] * 0.5 : v));
    const bands = spread && chosen.length <= BANDS;
    if (bands) marks.push("Bands: ± one standard deviation over seeds.");
    traces.push(...banded(curves.k, curve, bands ? low : null, high, r, { hovertemplate }));
    const rank = value(r, "output_rank", curves.at[at]);
    if (rank && name !== "contributions" && shapes.every((s) => s.x0 !== rank)) shapes.push(upright(rank, "dash"));
    curves.k.forEach((k, j) => rows.push([runs[r].name, k, curve[j], low[j], high[j]]));
  }
  if (shapes.length) marks.push("Dashed, upright: the rank of the outputs.");
  const x = logAxis("feature k, strongest first", { range: [-0.05, Math.log10(widest * 1.1)] });
  const form = layout(x, log ? logAxis(CURVES[name]) : axis(CURVES[name], { range: [-0.03, 1.05] }), { shapes });
  return drawing(traces, form, marks, ["run", "feature k", CURVES[name], "lower", "upper"], rows);
};

// ---- runs, layers, collapse and two measures at one step

const scale = () => {
  const chosen = shown(), traces = [], rows = [], marks = [];
  const add = (name, x, r, row, marker, error) => traces.push({ x: [x], y: [row], mode: "markers", marker: { color: colour(r), line: { color: colour(r), width: 2 }, ...marker }, error_x: error, text: [`${plain(runs[r].name)}<br>${name}`], hovertemplate: "%{text}: %{x:.4f}<extra></extra>", showlegend: false });
  const bar = (r, width) => ({ type: "data", array: [width], color: colour(r), thickness: 1.5, width: 5 });
  chosen.forEach((r, k) => {
    const p = index(r), row = -k, several = runs[r].seeds > 1;
    const d = value(r, "low_rank", p), iso = value(r, "isotropic", p), corrected = value(r, "low_rank_corrected", p);
    const error = several ? runs[r].sd?.low_rank?.[p] ?? null : value(r, "low_rank_stderr", p);
    if (iso !== null) {
      traces.push({ x: [0, iso], y: [row, row], mode: "lines", line: { color: veil(colour(r)), width: 7 }, hoverinfo: "skip", showlegend: false });
      add("structureless features", iso, r, row, { symbol: "line-ns", size: 12, line: { color: look().ink, width: 2 } });
      marks.push("| structureless features of the same shape.");
    }
    const centre = several ? d : corrected, width = error === null ? null : (several ? 1 : 1.96) * error;
    rows.push([runs[r].name, d, several ? null : corrected, centre === null || width === null ? null : centre - width, centre === null || width === null ? null : centre + width, iso]);
    if (several) {
      if (d === null) return;
      add("D_LR, mean over seeds ± sd", d, r, row, { size: 8 }, bar(r, width ?? 0));
      marks.push("● D_LR, mean over seeds ± one standard deviation.");
      return;
    }
    if (d !== null) { add("D_LR", d, r, row, { symbol: "circle-open", size: 12 }); marks.push("○ D_LR, plug-in value."); }
    if (corrected !== null) {
      add("bias-corrected, 95 %", corrected, r, row, { size: 6 }, width === null ? undefined : bar(r, width));
      marks.push("● D_LR without sampling bias, with its 95 % interval.");
    }
  });
  const narrow = innerWidth < 640;
  const y = axis("", { tickvals: chosen.map((_, k) => -k), ticktext: chosen.map((r) => plain(runs[r].name, narrow ? 14 : 36)), range: [0.6 - chosen.length, 0.6], showgrid: false, fixedrange: true });
  const form = layout(axis("D_LR: 0 rich → lazier", { range: [-0.02, 1.02] }), y, { height: 70 + 34 * chosen.length });
  return drawing(traces, form, marks.sort(), ["run", "D_LR", "bias-corrected", "lower", "upper", "structureless features"], rows);
};

const layers = () => {
  const base = shown().find((r) => runs[r].layers.length > 0), traces = [], rows = [], marks = [];
  const names = base === undefined ? [] : runs[base].layers;
  const alike = shown().filter((r) => names.length && runs[r].layers.join("\0") === names.join("\0"));
  const x = names.map((_, k) => k);
  for (const r of alike) {
    const run = runs[r], text = names.map((n) => `${plain(run.name)}<br>${plain(n || "(the model)")}`);
    const middle = run.layer_values.map((n) => value(r, n, index(r)));
    const spread = run.seeds > 1 ? run.layer_values.map((n) => run.sd?.[n]?.[index(r)] ?? 0) : run.error;
    const error_y = spread && { type: "data", array: spread, color: colour(r), thickness: 1.4, width: 4 };
    traces.push({ x, y: middle, error_y, text, name: plain(run.name, 60), mode: "lines+markers", line: { color: colour(r), dash: dash(r), width: 2 }, marker: { color: colour(r), size: 7 }, hovertemplate: "%{text}: %{y:.4f}<extra></extra>" });
    if (spread?.some((s) => s > 0)) marks.push(run.seeds > 1 ? "Bars: ± one standard deviation over seeds." : "Bars: 95 % interval.");
    if (run.balanced) {
      traces.push({ x, y: run.balanced, text, mode: "lines", line: { color: colour(r), dash: "dot", width: 1.5 }, hovertemplate: "%{text}, balanced: %{y:.4f}<extra></extra>", showlegend: false });
      marks.push("Dotted: the balanced reference.");
    }
    names.forEach((n, k) => rows.push([run.name, n || "(the model)", middle[k], spread?.[k] ?? null, run.balanced?.[k] ?? null, run.isotropic?.[k] ?? null]));
  }
  const shapes = (runs[base]?.isotropic ?? []).map((v, k) => ({ type: "line", x0: k - 0.12, x1: k + 0.12, y0: v, y1: v, line: { color: look().soft, width: 2 } })).filter((s) => s.y0 !== null);
  if (shapes.length) marks.push("Grey, level: structureless features.");
  const stride = Math.ceil(names.length / (innerWidth < 640 ? 12 : 40));
  const labelled = x.filter((k) => k % stride === 0);
  const ticks = axis("layer (measured at its input)", { tickvals: labelled, ticktext: labelled.map((k) => plain(names[k] || "(the model)", 22)), range: [-0.4, names.length - 0.6], tickangle: names.length > 6 ? -60 : "auto" });
  const form = layout(ticks, axis("D_LR", { range: [-0.03, 1.03] }), { shapes, height: 330 });
  return drawing(traces, form, marks, ["run", "layer", "D_LR", "±", "balanced reference", "structureless features"], rows);
};

const collapse = () => {
  const names = collapsed.filter((n) => shown().some((r) => value(r, n, index(r)) !== null)).reverse();
  const chosen = shown(), rows = [];
  const traces = chosen.map((r, k) => {
    const values = names.map((n) => value(r, n, index(r)));
    const y = names.map((_, j) => j + (chosen.length > 1 ? 0.5 * (0.5 - (k + 0.5) / chosen.length) : 0));
    names.forEach((n, j) => rows.push([runs[r].name, data.labels[n], values[j]]));
    return { x: values.map((v) => (v > 0 ? v : null)), y, mode: "markers", name: plain(runs[r].name, 60), marker: { color: colour(r), size: 10, symbol: runs[r].slot % 2 ? "diamond" : "circle" }, text: names.map((n) => `${plain(runs[r].name)}<br>${plain(data.labels[n])}`), hovertemplate: "%{text}: %{x:.4~g}<extra></extra>" };
  });
  const zeros = chosen.flatMap((r) => names.filter((n) => value(r, n, index(r)) === 0).map((n) => `${data.symbols[n]} of ${short(runs[r].name, 30)}`));
  const y = axis("", { tickvals: names.map((_, j) => j), ticktext: names.map((n) => plain(data.labels[n])), range: [-0.6, names.length - 0.4], fixedrange: true });
  const marks = zeros.length ? [`Exactly 0, which a log axis cannot show: ${zeros.slice(0, 8).join("; ")}${zeros.length > 8 ? " …" : ""}.`] : [];
  return drawing(traces, layout(logAxis("value (logarithmic)"), y, { height: 90 + 40 * names.length }), marks, ["run", "measure", "value"], rows);
};

const scatter = () => {
  const [a, b] = [state.x, state.y], traces = [], rows = [], marks = [], chosen = shown();
  for (const r of chosen) {
    const p = index(r), end = Math.max(0, p) + 1, x = value(r, a, p), y = value(r, b, p);
    const text = plain(runs[r].name), label = plain(runs[r].name, 60);
    if (p > 0 && runs[r].values[a] && runs[r].values[b]) {
      traces.push({ x: runs[r].values[a].slice(0, end), y: runs[r].values[b].slice(0, end), mode: "lines", line: { color: colour(r), dash: dash(r), width: 1 }, opacity: 0.6, hoverinfo: "skip", showlegend: false });
      marks.push("Lines: from the first evaluation to this one.");
    }
    if (x !== null && y !== null) traces.push({ x: [x], y: [y], mode: "markers", name: label, marker: { color: colour(r), size: 10, symbol: runs[r].slot % 2 ? "diamond" : "circle" }, text: [text], hovertemplate: "%{text}<br>%{x:.4~g}, %{y:.4~g}<extra></extra>" });
    rows.push([runs[r].name, runs[r].steps[p] ?? null, x, y]);
  }
  const form = (name, key) => {
    const known = traces.flatMap((t) => t[key]).filter((v) => v !== null), low = Math.min(...known);
    return low > 0 && Math.max(...known) > 100 * low ? logAxis(plain(data.labels[name]), { nticks: key === "x" ? 8 : 5 }) : axis(plain(data.labels[name]), {});
  };
  return drawing(traces, layout(form(a, "x"), form(b, "y"), { height: 360 }), marks, ["run", "step", data.labels[a], data.labels[b]], rows);
};
