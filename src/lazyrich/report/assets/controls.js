// ---- panels

const any = (name) => pool().some((r) => runs[r].values[name]);
const moves = (name) => pool().some((r) => runs[r].values[name]?.filter((v) => v !== null).length > 1);
const has = (name) => pool().some((r) => $(`curves-${r}`).textContent.includes(`"${name}":`));
const measures = () => Object.keys(data.labels).filter((n) => data.groups[n] !== "data" && any(n));
const panels = [];
const panel = (name, wanted, draw) => {
  const section = document.querySelector(`[data-panel="${name}"]`), plot = section.querySelector(".plot"), title = section.querySelector("h2").textContent;
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${title}; the numbers are in the data table below`);
  const p = { name, title, section, plot, wanted, draw, marks: section.querySelector(".marks"), stale: true, near: false };
  panels.push(p);
  under(p);
};
const percent = { title: "share of the samples", y: { range: [-0.02, 1.03], tickformat: ".0%" } };
const collapsing = () => collapsed.some(moves);
const others = () => measures().filter((n) => moves(n) && n !== "low_rank");
const draw = (p) => {
  p.drawn = p.draw();
  p.stale = false;
  Plotly.react(p.plot, p.drawn.traces, p.drawn.layout, { displayModeBar: false, responsive: true });
  p.marks.textContent = p.drawn.marks.join(" ");
  p.marks.hidden = !p.drawn.marks.length;
  fillTable(p);
};
panel("scale", () => any("low_rank"), scale);
panel("time", () => moves("low_rank"), overSteps("low_rank", { reference: true, y: { range: [-0.02, 1.02] }, height: 330 }));
panel("laziness", () => moves("laziness"), overSteps("laziness", { height: 300 }));
panel("train_accuracy", () => moves("train_accuracy"), overSteps("train_accuracy", percent));
panel("test_accuracy", () => moves("test_accuracy"), overSteps("test_accuracy", percent));
for (const name of Object.keys(CURVES)) panel(name, () => has(name), curvePanel(name));
panel("layers", () => pool().some((r) => runs[r].layers.length > 1), layers);
panel("collapse", () => collapsed.some(any) && !collapsing(), collapse);
for (const name of collapsed) panel(name, () => moves(name), overSteps(name, { log: true }));
panel("other", () => others().length > 0, () => overSteps(state.measure, { height: 300 })());
panel("scatter", () => measures().filter((n) => pool().length > 1 || moves(n)).length > 1, scatter);

/** Which panels the runs of the experiment have, and what the reader misses. */
const arrange = () => {
  time = timeAxis();
  for (const p of panels) p.section.hidden = !p.wanted();
  document.querySelector('[data-part="curves"]').hidden = !Object.keys(CURVES).some(has);
  document.querySelector('[data-part="collapse"]').hidden = !collapsing();
  const over = pool().some((r) => runs[r].steps.length > 1);
  const absent = [
    [!has("relative_eigenvalues"), "There are no curves: they were not stored (a Monitor stores them with preset=\"standard\" or more)."],
    [has("relative_eigenvalues") && !has("quality"), "There is no quality curve: it needs targets."],
    [!collapsed.some(any), "There are no collapse measures: they need class labels and, in a Monitor, preset=\"standard\" or more."],
    [!pool().some((r) => runs[r].layers.length > 1), "There is no profile over the layers: it needs a measurement with layers=\"all\"."],
    [over && !any("train_accuracy") && !any("test_accuracy"), "There are no accuracies: none were reported."],
    [data.thinned, "Some evaluations of each run, evenly spaced, are drawn with their curves."],
  ].filter(([is]) => is).map(([, text]) => text);
  $("absent").textContent = absent.join(" ");
  $("absent").hidden = absent.length === 0;
};
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const p = panels.find((q) => q.section === entry.target);
    p.near = entry.isIntersecting;
    if (p.near && p.stale) draw(p);
  }
}, { rootMargin: "300px" });
let due = 0;
const redraw = () => {
  for (const p of panels) p.stale = true;
  cancelAnimationFrame(due);
  due = requestAnimationFrame(() => { for (const p of panels) if (p.near && p.stale && !p.section.hidden) draw(p); });
};

// ---- controls

const choice = (id, names, chosen) => {
  $(id).replaceChildren(...names.map((name) => Object.assign(new Option(short(data.labels[name] ?? name, 60), name), { title: data.labels[name] ?? name })));
  $(id).value = chosen;
  return chosen;
};
const slide = () => {
  const all = stepsShown();
  state.step = all[$("step").value] ?? all.at(-1) ?? 0;
  const drawn = shown(), text = `step ${state.step.toLocaleString("en")}`;
  const values = drawn.slice(0, 3).map((r) => `D_LR ${number(value(r, "low_rank", index(r)))}${drawn.length > 1 ? ` in ${short(runs[r].name, 30)}` : ""}`);
  $("step").setAttribute("aria-valuetext", `${text}, ${values.join(", ")}`);
  $("step-text").textContent = state.step.toLocaleString("en") + (drawn.length === 1 ? `: ${number(value(drawn[0], "low_rank", index(drawn[0])))}` : "");
  document.querySelector(".part .at").textContent = all.length > 1 ? `at ${text}` : "";
  redraw();
};
/** The runs that are drawn have changed. */
const choose = () => {
  const before = state.step, all = stepsShown();
  $("step").max = Math.max(0, all.length - 1);
  $("step").value = Math.max(0, indexAt(all, before));
  $("step-label").hidden = all.length < 2;
  const drawn = shown().length, there = matching().length;
  $("count").textContent = `${drawn} of ${pool().length} runs drawn${there < pool().length ? `, ${there} match` : ""}`;
  slide();
};
const tick = (which) => {
  state.on = new Set(which);
  document.querySelectorAll("#legend input").forEach((box) => { box.checked = state.on.has(Number(box.value)); });
  choose();
};
/** The runs that match have changed: the first of them are drawn. */
const match = () => {
  const there = matching(), listed = new Set(there);
  state.on = new Set(there.slice(0, MOST));
  $("legend").replaceChildren(...(pool().length < 2 ? [] : there).map((r) => {
    const box = element("input", { type: "checkbox", value: r, checked: state.on.has(r) });
    box.addEventListener("change", () => tick(box.checked ? [...state.on, r] : [...state.on].filter((other) => other !== r)));
    return element("li", {}, element("label", {}, box, swatch(r), element("span", { className: "name", title: runs[r].name }, runs[r].name)));
  }));
  document.querySelectorAll("tr[data-run]").forEach((row) => { row.hidden = !listed.has(Number(row.dataset.run)); });
  choose();
};
/** Another experiment was chosen. */
const enter = (experiment) => {
  state.experiment = experiment;
  const many = pool().length > 1, can = measures();
  $("controls").hidden = !many && !trained && !$("experiments");
  for (const id of ["filter-label", "all", "none", "count"]) $(id).hidden = !many;
  state.measure = choice("measure", others(), others().find((n) => n === "balanced") ?? others()[0]);
  const first = ["test_accuracy", "accuracy", "train_accuracy", "loss", "test_loss", "laziness", "balanced"].find((n) => can.includes(n));
  state.x = choice("x", can, first ?? can[0]);
  state.y = choice("y", can, can.find((n) => n === "low_rank") ?? can.at(-1));
  document.querySelectorAll("[data-experiment]").forEach((part) => { part.hidden = part.dataset.experiment !== experiment; });
  arrange();
  state.step = Math.max(...pool().flatMap((r) => runs[r].steps));
  match();
};
const sortable = (table) => {
  table.querySelectorAll("thead th").forEach((th, column) => {
    const button = element("button", { type: "button" }, ...th.childNodes);
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
/** A box for each column of the table of all runs; those that are not ticked are hidden. */
const columns = (table) => {
  const heads = [...table.tHead.rows[0].cells].slice(1), all = heads.length <= 8;
  const boxes = heads.map((th, k) => {
    const box = element("input", { type: "checkbox", checked: all || "main" in th.dataset });
    const apply = () => { for (const row of table.rows) row.cells[k + 1].hidden = !box.checked; };
    box.addEventListener("change", apply);
    apply();
    return element("label", {}, box, th.textContent);
  });
  $("columns").append(element("div", { className: "boxes" }, ...boxes));
  $("columns").hidden = false;
};

document.querySelectorAll("[data-swatch]").forEach((place) => place.prepend(swatch(Number(place.dataset.swatch))));
document.querySelectorAll("table.many").forEach((table) => { columns(table); sortable(table); });
enter(state.experiment);
$("step").addEventListener("input", slide);
$("filter").addEventListener("input", () => { state.words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean); match(); });
$("all").addEventListener("click", () => tick(matching()));
$("none").addEventListener("click", () => tick([]));
for (const id of ["measure", "x", "y"]) $(id).addEventListener("change", () => { state[id] = $(id).value; redraw(); });
$("experiment")?.addEventListener("change", () => enter($("experiment").value));
document.querySelectorAll("a[data-enter]").forEach((link) => link.addEventListener("click", () => { $("experiment").value = link.dataset.enter; enter(link.dataset.enter); }));
for (const p of panels) watcher.observe(p.section);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => {
  printing = true;
  for (const p of panels.filter((q) => !q.section.hidden)) {
    draw(p);
    Plotly.relayout(p.plot, { width: p.section.classList.contains("wide") ? 660 : 310, autosize: false });
  }
});
addEventListener("afterprint", () => {
  printing = false;
  for (const p of panels) if (p.plot.layout) Plotly.relayout(p.plot, { width: null, autosize: true });
  redraw();
});
