// ---- panels

const any = (name) => runs.some((run) => run.values[name]);
const moves = (name) => trained && runs.some((run) => run.values[name]?.filter((v) => v !== null).length > 1);
const has = (name) => runs.some((_, r) => $(`curves-${r}`).textContent.includes(`"${name}":`));
const unit = { range: [-0.03, 1.05] };
const panels = new Map();
const panel = (name, wanted, draw) => {
  const section = document.querySelector(`[data-panel="${name}"]`);
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
  [!has("relative_eigenvalues"), "There are no curves: they were not stored (a Monitor stores them with preset=\"standard\" or more)."],
  [has("relative_eigenvalues") && !has("quality"), "There is no quality curve: it needs targets."],
  [!collapsed.length, "There are no collapse measures: they need class labels and, in a Monitor, preset=\"standard\" or more."],
  [!panels.has("layers"), "There is no profile over the layers: it needs a measurement with layers=\"all\"."],
  [!any("train_accuracy") && !any("test_accuracy") && trained, "There are no accuracies: none were reported."],
  [data.thinned, "Some evaluations of each run, evenly spaced, are drawn with their curves."],
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
  option($("compare"), "none", -1);
  runs.forEach((run, r) => option($("compare"), run.name, r));
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
  const values = shown().slice(0, 3).map((r) => `D_LR ${number(value(r, "low_rank", index(r)))}${shown().length > 1 ? ` in ${short(runs[r].name, 30)}` : ""}`);
  $("step").setAttribute("aria-valuetext", `${text}, ${values.join(", ")}`);
  $("step-text").textContent = state.step.toLocaleString("en") + (shown().length === 1 ? `: ${number(value(shown()[0], "low_rank", index(shown()[0])))}` : "");
  document.querySelector(".part .at").textContent = trained ? `at ${text}${shown().length === 1 ? "; dotted: at the first evaluation" : ""}` : "";
  redraw();
};
const choose = () => {
  const before = state.step;
  state.show = Number($("show").value);
  state.compare = state.show < 0 ? -1 : Number($("compare").value);
  $("compare-label").hidden = state.show < 0 || runs.length < 2;
  const all = stepsShown();
  $("step").max = Math.max(0, all.length - 1);
  $("step").value = Math.max(0, indexAt(all, before));
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
$("compare").addEventListener("change", choose);
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
