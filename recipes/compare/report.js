// Assembles the report: choices, scorer and provenance.
{
  const at = (id) => document.getElementById(id);
  const count = (value, word) => (finite(value) ? `${integer(value)} ${word}` : null);
  const seeds = data.seeds ?? [];

  at("about").textContent = escaped([
    data.corpus && `${data.corpus}${data.split ? `, ${data.split} split` : ""}`, count(data.documents, "passages"), count(data.tokens, "tokens"),
    finite(data.bytes) ? size(data.bytes) : null, seeds.length ? count(seeds.length, seeds.length === 1 ? "seed" : "seeds") : null, `baseline ${data.baseline}`,
  ].filter(Boolean).join(" · "));

  const redraw = () => { drawTable(); drawCharts(); };
  const select = (label, values, onchange) => element("label", {}, element("span", {}, label),
    element("select", { id: `by-${label.toLowerCase()}`, onchange: (event) => onchange(event.target.value) },
      values.map(([value, text]) => element("option", { value }, text))));
  if (metricNames.length > 1) {
    at("filters").append(choice("Metric", metricNames.map((name) => [name, data.metrics[name].label]), chosen.metric, (name) => { chosen.metric = name; redraw(); }));
  }
  if (trains.length > 1) at("filters").append(choice("Trained", trains.map((name) => [name, name]), chosen.train, (name) => { chosen.train = name; redraw(); }));
  if (capacities.length > 1) {
    at("filters").append(select("Capacity", [["all", "all"], ...capacities.map((slots) => [slots, `${integer(slots)} slots`])], (slots) => { chosen.capacity = slots; drawTable(); }));
  }
  at("table-note").textContent = "Small figures: 95% intervals over passages. The interval of the value is wide because passages differ; "
    + `the interval against ${data.baseline} compares the same passages and is the one that decides.`
    + (seeds.length > 1 ? ` Seeds (${seeds.join(", ")}) are averaged within each passage.` : seeds.length ? " One seed: how much a new training run would change this is unknown." : "");

  at("curve-tools").append(choice("Show", [["value", "value"], ["difference", `difference from ${data.baseline}`]], "value", (what) => { curves.difference = what === "difference"; drawCharts(); }));
  strategyButtons(at("legend"), [...new Set(data.rows.map((row) => row.strategy))], curves.shown, drawCharts);
  drawTable();
  if (data.rows.length) layCharts();
  else at("results").hidden = at("curves").hidden = true;

  const passage = data.passage;
  if (passage?.tokens?.length) {
    const memories = passage.memories ? drawKept(passage) : null;
    if (Object.keys(passage.signals ?? {}).length) {
      at("passage").hidden = false;
      at("passage-title").textContent = `A passage by score: ${escaped(passage.name)}`;
      heatMap(at("map"), passage.tokens, passage.signals, { tall: true, onsignal: (name) => memories?.measure(name) });
    }
  }

  if (data.scorer) {
    at("scorer").hidden = false;
    const { rate, residual, codes, codes_used: used, dead_codes: dead, ...more } = data.scorer;
    const tile = (value, label, ...extra) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, label), ...extra);
    const usage = finite(codes) && finite(used) ? element("div", { class: "bar", "aria-hidden": "true", "--share": used / codes }, element("i")) : null;
    at("scorer-tiles").append(
      ...(finite(rate) ? [tile(format(rate, 3), "rate: entropy of the codes, bits per token")] : []),
      ...(finite(residual) ? [tile(format(residual, 3), "residual: information that the code lacks, bits per token")] : []),
      ...(finite(used) ? [tile(integer(used) + (finite(codes) ? ` of ${integer(codes)}` : ""), "codes used", usage)] : []),
      ...(finite(dead) ? [tile(`${dead ? "⚠ " : ""}${integer(dead)}`, dead ? "dead codes: never chosen" : "dead codes")] : []),
      ...Object.entries(more).filter(([, value]) => value != null && typeof value !== "object").map(([name, value]) =>
        tile(finite(value) ? (Number.isInteger(value) ? integer(value) : format(value, digitsOf(value))) : String(value), name.replaceAll("_", " "))));
    at("scorer-note").textContent = "Rate and residual belong together: more codes raise the rate and lower the residual. "
      + "With as many codes as tokens nothing is left to score; with one code the score is plain surprisal.";
  }

  const rows = {
    Created: data.created, Took: finite(data.seconds) ? duration(data.seconds) : null, Machine: data.machine, Seeds: seeds.join(", "),
    Corpus: [data.corpus, data.split && `${data.split} split`].filter(Boolean).join(", "), Baseline: data.baseline,
    Intervals: `paired bootstrap over passages, 95%, expanded percentile (Hesterberg 2014)${seeds.length ? "; seeds averaged within each passage" : ""}`,
  };
  at("made").append(...Object.entries(rows).filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  at("command").textContent = escaped(data.command ?? missing);
  at("config").textContent = escaped(JSON.stringify(data.config ?? {}, null, 2));

  function duration(seconds) {
    const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
    return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${Math.round(seconds % 60)} s` : `${seconds.toFixed(1)} s`;
  }
}
