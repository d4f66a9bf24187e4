// Each chart as a table and as a file, made when a reader asks for it; nothing leaves the page.

const cell = (x) => (typeof x === "number" ? String(Number(x.toPrecision(5))) : x ?? "");
const csvOf = ({ columns, rows }) => [columns, ...rows].map((row) => row.map(cell).map((t) => (/[",\r\n]/.test(t) ? `"${t.replace(/"/g, '""')}"` : t)).join(",")).join("\r\n") + "\r\n";
const tableOf = (title, { columns, rows }) => {
  const head = element("tr", {}, ...columns.map((text) => element("th", { scope: "col" }, text)));
  const lines = rows.map(([first, ...rest]) => element("tr", {}, element("th", { scope: "row" }, String(first)), ...rest.map((x) => element("td", {}, cell(x) || "-"))));
  return element("table", {}, element("caption", {}, title), element("thead", {}, head), element("tbody", {}, ...lines));
};
const fileName = (p) => `${document.querySelector("h1").textContent} ${p.name}`.replace(/[^\w.-]+/g, "-").slice(0, 80);
const download = (name, text) => {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};
/** The chart on white, with its title and the names of the runs, whatever the page looks like. */
const picture = (p, format) => {
  printing = true;
  const { traces, layout: form } = p.draw();
  printing = false;
  const named = traces.filter((t) => t.name && t.showlegend !== false).length, width = 900;
  const below = named > 1 ? 24 * Math.ceil(named / 2) : 0;
  const figure = { data: traces, layout: { ...form, paper_bgcolor: "#fff", plot_bgcolor: "#fff", width, height: form.height + 130 + below, margin: { ...form.margin, t: 50 }, title: { text: plain(p.title, 80) }, showlegend: named > 1, legend: { orientation: "h", yanchor: "top", y: -0.25 } } };
  return Plotly.downloadImage(figure, { format, filename: fileName(p), width, height: figure.layout.height, scale: format === "png" ? 2 : 1 });
};
const fillTable = (p) => {
  if (p.details.open) p.details.querySelector(".scroll").replaceChildren(tableOf(p.title, p.drawn));
};
/** Below a chart: its numbers as a table, and buttons that save it. */
const under = (p) => {
  const scroll = element("div", { className: "scroll", tabIndex: 0 });
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Data of ${p.title}`);
  p.details = element("details", {}, element("summary", {}, "Data table"), scroll);
  p.details.addEventListener("toggle", () => { if (p.stale) draw(p); else fillTable(p); });
  const button = (label, save) => {
    const made = element("button", { type: "button", title: `Save ${p.title} as ${label}` }, label);
    made.addEventListener("click", () => { if (p.stale) draw(p); save(); });
    return made;
  };
  p.section.append(element("div", { className: "under" }, p.details, element("div", { className: "save" }, "Save as ",
    button("SVG", () => picture(p, "svg")), button("PNG", () => picture(p, "png")), button("CSV", () => download(`${fileName(p)}.csv`, csvOf(p.drawn))))));
};
