// The charts of quality against size: Vega draws the specifications of `charts.py` in the colours of the page.
const curves = { shown: new Set(strategies), difference: false };
const views = new Map();

// The colours of the style sheet in a form that Vega accepts, for a colour scheme (default: that of the page).
function chartConfig(scheme, more) {
  const probe = document.body.appendChild(element("i", { class: "mark" }));
  if (scheme) probe.style.colorScheme = scheme;
  const colour = (value) => {
    probe.style.setProperty("--c", value);
    return getComputedStyle(probe).color;
  };
  const [ink, soft, line, card] = ["--ink", "--soft", "--line", "--card"].map((name) => colour(`var(${name})`));
  const config = {
    background: card, font: "system-ui, sans-serif", view: { stroke: null }, point: { size: 4 },
    range: { category: strategies.map((name) => colour(colourOf(name))), symbol: strategies.map(shapeOf) },
    axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: soft, tickColor: soft, labelFontSize: 12, titleFontSize: 12 },
    title: { color: soft }, legend: { labelColor: ink, labelFontSize: 12, symbolSize: 4, symbolOpacity: 1, labelLimit: 300 }, ...more,
  };
  probe.remove();
  return config;
}

// Draws a chart with the current choices. Vega's interpreter replaces `eval`, which the content security policy forbids.
async function embed(root, id, config, more) {
  const spec = { ...data.charts[id], datasets: { points: data.points }, ...more };
  const tooltip = (_, event, item, value) => (value ? showPoint(event.target, item.datum) : tip.hide());
  const { view } = await vegaEmbed(root, spec, { ast: true, renderer: "svg", actions: false, defaultStyle: false, logLevel: 1, config, tooltip });
  return setSignals(view).runAsync();
}

function setSignals(view) {
  const spec = data.metrics[chosen.metric];
  const what = curves.difference ? `difference from ${data.baseline}` : unitOf(spec);
  return view.signal("metric", chosen.metric).signal("train", chosen.train).signal("difference", curves.difference)
    .signal("hidden", strategies.filter((name) => !curves.shown.has(name)))
    .signal("y_title", escaped(`${what} · ${spec.better === "lower" ? "↓ lower" : "↑ higher"} is better`));
}

function showPoint(target, { row: index, strategy }) {
  const row = data.rows[index];
  tip.show(target, strategy, [
    ["capacity", `${integer(row.capacity)} slots`], ["memory a row", size(row.memory_bytes)],
    ...comparison(metricOf(row), data.metrics[chosen.metric].digits),
  ]);
}

// Creates both charts, again after a change of theme; `drawCharts` updates them.
async function layCharts() {
  for (const id of Object.keys(data.charts)) {
    views.get(id)?.finalize();
    views.set(id, await embed(`#${id}`, id, chartConfig(null, { legend: { disable: true } })));
  }
  await drawCharts();
}

async function drawCharts() {
  for (const view of views.values()) await setSignals(view).runAsync();
  // Makes every point reachable by keyboard.
  for (const point of document.querySelectorAll(".chart .mark-symbol.role-mark path")) point.tabIndex = 0;
  document.getElementById("curve-note").textContent =
    `Whiskers: 95% interval of the paired difference from ${data.baseline}${curves.difference ? "" : ", drawn around the value"}. `
    + "Points of different strategies are shifted sideways a little so that none hides another. "
    + "Drag to move; Ctrl and the wheel zoom; a double click shows all again.";
}

const download = (name, address) => element("a", { download: name, href: address }).click();

// For print: light, with a legend, and with a fixed width.
async function downloadImage(id, kind) {
  const view = await embed(element("div"), id, chartConfig("light"), { width: 640 });
  const address = async () => `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await view.toSVG())}`;
  download(`${id}.${kind}`, await (kind === "svg" ? address() : view.toImageURL("png", 2)));
  view.finalize();
}

// All points, independent of the current choices.
function downloadTable() {
  const columns = Object.keys(data.points[0]).filter((name) => !["row", "shift"].includes(name));
  const quoted = (value) => (typeof value === "string" ? `"${value.replaceAll('"', '""')}"` : value ?? "");
  const lines = [columns, ...data.points.map((point) => columns.map((column) => point[column]))];
  download("comparison.csv", `data:text/csv;charset=utf-8,${encodeURIComponent(lines.map((line) => line.map(quoted).join(",")).join("\r\n"))}`);
}

for (const id of Object.keys(data.charts)) {
  const button = (kind, onclick) => element("button", { "data-export": kind, onclick }, kind.toUpperCase());
  document.getElementById(`${id}-export`).append(
    button("svg", () => downloadImage(id, "svg")), button("png", () => downloadImage(id, "png")), button("csv", downloadTable));
  document.getElementById(id).addEventListener("focusin", ({ target }) => target.__data__?.datum && showPoint(target, target.__data__.datum));
  document.getElementById(id).addEventListener("focusout", () => tip.hide());
}
theme.addEventListener("click", layCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", layCharts);
