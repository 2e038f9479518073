// Shared by all parts of the report: the chosen metric, and the table.
const metricNames = Object.keys(data.metrics);
const trains = [...new Set(data.rows.map((row) => row.train))];
const capacities = [...new Set(data.rows.map((row) => row.capacity))].sort((a, b) => a - b);
const chosen = { metric: metricNames[0], train: trains[0], capacity: "all" };
const metricOf = (row) => row.metrics[chosen.metric] ?? {};
const unitOf = (spec) => `${spec.label}${spec.unit ? `, ${spec.unit}` : ""}`;
const verdicts = {
  better: "▲ better", worse: "▼ worse", "no difference": "= no difference", baseline: "● baseline", "too few passages": "? too few passages",
};

const comparison = (entry, digits) => [
  ["value", `${format(entry.value, digits)} [${format(entry.low, digits)}, ${format(entry.high, digits)}]`],
  [`against ${data.baseline}`, `${signed(entry.difference, digits)} [${signed(entry.difference_low, digits)}, ${signed(entry.difference_high, digits)}]`],
  ["verdict", entry.verdict ?? missing],
];

// The interval of a difference on the scale of the table, with 0 marked.
function forest(entry, reach) {
  const at = (value) => 60 + (value / reach) * 54;
  const drawing = svg("svg", { width: 120, height: 18, viewBox: "0 0 120 18", "aria-hidden": "true" },
    svg("line", { x1: 60, x2: 60, y1: 1, y2: 17, stroke: "var(--soft)", "stroke-dasharray": "2 2" }));
  if (finite(entry.difference_low) && entry.verdict !== "baseline") {
    const colour = { better: "var(--good)", worse: "var(--bad)" }[entry.verdict] ?? "var(--soft)";
    drawing.append(
      svg("line", { x1: at(entry.difference_low), x2: at(entry.difference_high), y1: 9, y2: 9, stroke: colour, "stroke-width": 2.5 }),
      svg("circle", { cx: at(entry.difference), cy: 9, r: 4, fill: colour }));
  }
  return drawing;
}

const columns = () => {
  const spec = data.metrics[chosen.metric], digits = spec.digits, best = spec.better === "lower" ? 1 : -1;
  const several = data.rows.some((row) => row.per_seed?.[chosen.metric]?.length > 1);
  return [
    { name: "Strategy", text: true, key: (row) => row.strategy, cell: (row) => [badgeMark(row.strategy), " ", row.strategy] },
    { name: "Capacity", key: (row) => row.capacity, cell: (row) => integer(row.capacity) },
    { name: unitOf(spec), key: (row) => best * metricOf(row).value, cell: (row) => {
      const { value, low, high } = metricOf(row);
      return [format(value, digits), element("small", {}, finite(low) ? `${format(low, digits)} … ${format(high, digits)}` : missing)];
    } },
    { name: `Against ${data.baseline}`, key: (row) => best * metricOf(row).difference, cell: (row) => {
      const { difference, difference_low: low, difference_high: high, verdict } = metricOf(row);
      if (verdict === "baseline") return missing;
      return [signed(difference, digits), element("small", {}, finite(low) ? `${signed(low, digits)} … ${signed(high, digits)}` : missing)];
    } },
    { name: "Interval", key: (row) => best * metricOf(row).difference_low, cell: (row, reach) => forest(metricOf(row), reach) },
    { name: "Verdict", text: true, key: (row) => metricOf(row).verdict, cell: (row) => {
      const { verdict } = metricOf(row);
      return element("span", { class: `badge ${verdict?.split(" ")[0]}` }, verdicts[verdict] ?? missing);
    } },
    { name: "Memory", key: (row) => row.memory_bytes, cell: (row) => size(row.memory_bytes) },
    ...(several ? [{ name: "Seeds", key: (row) => best * row.per_seed?.[chosen.metric]?.[0], cell: (row) => {
      const values = row.per_seed?.[chosen.metric] ?? [];
      if (!values.length) return missing;
      return element("span", { title: values.map((value) => format(value, digits)).join(", ") },
        `${format(Math.min(...values), digits)} … ${format(Math.max(...values), digits)}`);
    } }] : []),
    { name: "Tokens/s", key: (row) => row.tokens_per_second, cell: (row) => integer(row.tokens_per_second) },
  ];
};

const sorting = { column: null, down: false };
function compareKeys(a, b) {
  if (typeof a === "string" || typeof b === "string") return String(a ?? "").localeCompare(String(b ?? ""));
  return (finite(a) ? a : Infinity) - (finite(b) ? b : Infinity) || 0;
}
function drawTable() {
  const shown = data.rows.filter((row) => row.train === chosen.train && finite(metricOf(row).value)
    && (chosen.capacity === "all" || row.capacity === Number(chosen.capacity)));
  const reach = Math.max(1e-12, ...shown.flatMap((row) => [metricOf(row).difference_low, metricOf(row).difference_high]).filter(finite).map(Math.abs));
  const all = columns();
  const by = all.find((column) => column.name === sorting.column);
  const rows = by ? [...shown].sort((a, b) => compareKeys(by.key(a), by.key(b)) * (sorting.down ? -1 : 1))
    : [...shown].sort((a, b) => a.capacity - b.capacity || compareKeys(all[2].key(a), all[2].key(b)));
  const head = all.map((column) => element("th", {
    scope: "col", class: column.text ? "text" : null,
    "aria-sort": column === by ? (sorting.down ? "descending" : "ascending") : null,
  }, element("button", { "data-column": column.name, onclick() {
    sorting.down = sorting.column === column.name && !sorting.down;
    sorting.column = column.name;
    drawTable();
    document.querySelector(`#table [data-column="${CSS.escape(column.name)}"]`)?.focus();
  } }, column.name)));
  const body = rows.map((row, place) => element("tr", {
    class: !by && place && rows[place - 1].capacity !== row.capacity ? "first" : null, "data-strategy": row.strategy, "data-capacity": row.capacity,
  }, all.map((column, index) => element(index ? "td" : "th", { scope: index ? null : "row", class: column.text ? "text" : null }, column.cell(row, reach)))));
  document.getElementById("table").replaceChildren(element("thead", {}, element("tr", {}, head)), element("tbody", {}, body));
}
