// Quality against slots and against bytes, as inline SVG that is drawn anew for the width there is.
const curves = { shown: new Set(strategies), difference: false };
const plot = { left: 58, right: 14, top: 30, bottom: 26, height: 300 };

function niceTicks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw);
  const ticks = [];
  for (let tick = Math.ceil(low / step); tick * step <= high + step * 1e-9; tick++) ticks.push(tick * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// The points of one strategy. Whiskers are always the interval of the paired difference, which is the one that tells
// strategies apart; around a value they are drawn at that value.
function pointsOf(name, xOf) {
  return data.rows
    .filter((row) => row.strategy === name && row.train === chosen.train && finite(metricOf(row).value) && finite(xOf(row)))
    .map((row) => {
      const entry = metricOf(row), centre = curves.difference ? entry.difference : entry.value;
      const whisker = finite(entry.difference_low) && entry.verdict !== "baseline";
      const shift = centre - entry.difference;
      return { row, entry, x: xOf(row), y: centre, low: whisker ? shift + entry.difference_low : centre, high: whisker ? shift + entry.difference_high : centre };
    })
    .filter((point) => finite(point.y) && point.x > 0)
    .sort((a, b) => a.x - b.x);
}

function xTicks(xs, isBytes) {
  const distinct = [...new Set(xs)].sort((a, b) => a - b);
  if (!isBytes) return distinct;
  const low = Math.ceil(Math.log2(distinct[0]) - 0.3), high = Math.floor(Math.log2(distinct.at(-1)) + 0.3);
  const step = Math.max(1, Math.ceil((high - low + 1) / 5));
  return Array.from({ length: Math.max(0, Math.floor((high - low) / step) + 1) }, (_, index) => 2 ** (low + index * step));
}

function drawChart(root, xOf, isBytes) {
  const width = Math.max(260, root.clientWidth), { left, right, top, bottom, height } = plot;
  const series = strategies.filter((name) => curves.shown.has(name)).map((name) => ({ name, points: pointsOf(name, xOf) })).filter(({ points }) => points.length);
  const all = series.flatMap(({ points }) => points);
  if (!all.length) return root.replaceChildren(element("p", { class: "soft" }, "Nothing to show: choose a strategy above."));
  const logs = all.map((point) => Math.log2(point.x)), ys = all.flatMap((point) => [point.low, point.high, ...(curves.difference ? [0] : [])]);
  const [x0, x1] = [Math.min(...logs) - 0.35, Math.max(...logs) + 0.35];
  const pad = (Math.max(...ys) - Math.min(...ys)) * 0.08 || Math.abs(ys[0]) * 0.01 || 1;
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const px = (x) => left + ((Math.log2(x) - x0) / (x1 - x0)) * (width - left - right);
  const py = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
  const { ticks, digits } = niceTicks(y0, y1, 5);
  const spec = data.metrics[chosen.metric];
  const title = curves.difference ? `difference from ${data.baseline}` : unitOf(spec);
  const drawing = svg("svg", { width, height, role: "group", "aria-label": `${title} ${isBytes ? "against bytes" : "against slots"}; the table above holds the same figures` },
    ticks.map((tick) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: py(tick), y2: py(tick) }),
      svg("text", { x: left - 8, y: py(tick) + 4, "text-anchor": "end" }, curves.difference ? signed(tick, digits) : format(tick, digits)),
    ]),
    curves.difference ? svg("line", { class: "zero", x1: left, x2: width - right, y1: py(0), y2: py(0) }) : null,
    xTicks(all.map((point) => point.x), isBytes).map((tick) =>
      svg("text", { x: px(tick), y: height - bottom + 18, "text-anchor": "middle" }, isBytes ? size(tick) : whole(tick))),
    svg("text", { x: 0, y: 14 }, `${title} · ${spec.better === "lower" ? "↓ lower" : "↑ higher"} is better`));
  series.forEach((one, index) => drawing.append(drawSeries(one, (index - (series.length - 1) / 2) * 5, px, py, spec.digits)));
  root.replaceChildren(drawing);
}

function drawSeries({ name, points }, shift, px, py, digits) {
  const place = (point) => [px(point.x) + shift, py(point.y)];
  const group = svg("g", { "data-strategy": name, class: "mark", "--c": colourOf(name) },
    svg("polyline", {
      points: points.map((point) => place(point).join(",")).join(" "), fill: "none", stroke: "currentColor", "stroke-width": 1.5, opacity: 0.6,
      "stroke-dasharray": name === data.baseline ? "5 4" : null,
    }));
  for (const point of points) {
    const [x, y] = place(point);
    if (point.high > point.low) {
      const path = `M${x - 3} ${py(point.low)}H${x + 3}M${x} ${py(point.low)}V${py(point.high)}M${x - 3} ${py(point.high)}H${x + 3}`;
      group.append(svg("path", { d: path, stroke: "currentColor", "stroke-width": 1.5, fill: "none" }));
    }
    const told = [["slots", whole(point.row.budget)], ["memory a row", size(point.row.bytes_held)], ...comparison(point.entry, digits)];
    const spot = svg("g", {
      class: "point", tabindex: 0, role: "img", transform: `translate(${x} ${y})`,
      "aria-label": `${name}, ${told.map((pair) => pair.join(" ")).join(", ")}`,
      onpointerenter: () => tip.show(spot, name, told), onpointerleave: () => tip.hide(),
      onfocus: () => tip.show(spot, name, told), onblur: () => tip.hide(),
    }, svg("circle", { r: 11, fill: "transparent" }), mark(name));
    group.append(spot);
  }
  return group;
}

function drawCharts() {
  drawChart(document.getElementById("by-slots"), (row) => row.budget, false);
  drawChart(document.getElementById("by-bytes"), (row) => row.bytes_held, true);
  document.getElementById("curve-note").textContent =
    `Whiskers: 95% interval of the paired difference from ${data.baseline}${curves.difference ? "" : ", drawn around the value"}. `
    + "Points of different strategies are moved apart sideways a little so that none hides another.";
}
