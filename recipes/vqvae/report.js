// The report of a VQ-VAE: figures by level, usage of codes, players and spectrograms.
{
  const at = (id) => document.getElementById(id);
  at("about").textContent = `${integer(data.clips)} recordings (${integer(data.seconds)} s) of the ${data.split} split · ${integer(data.codes)} codes per level`;

  const columns = [
    ["hop", (level) => integer(level.hop)],
    ["codes per second", (level) => integer(level.codes_per_second)],
    ["bits per second", (level) => integer(level.bits_per_second)],
    ["STFT error", (level) => format(level.figures.stft_error)],
    ["convergence", (level) => format(level.figures.convergence)],
    ["log magnitude", (level) => format(level.figures.log_magnitude)],
    ["squared error", (level) => format(level.figures.mse)],
    ["codes used", (level) => `${integer(level.figures.codes_used)} (${format(100 * level.figures.used, 1)} %)`],
    ["perplexity", (level) => format(level.figures.perplexity, 1)],
  ];
  at("levels").append(
    element("thead", {}, element("tr", {}, columns.map(([name]) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, data.levels.map((level) => element("tr", {}, columns.map(([, show]) => element("td", {}, show(level)))))));

  for (const level of data.levels) {
    const [width, height] = [360, 120];
    const total = level.usage.reduce((sum, count) => sum + count, 0) || 1;
    const top = Math.max(...level.usage, total / data.codes);
    const y = (count) => height - (height * count) / top;
    const step = width / level.usage.length;
    const path = `M0 ${height}${level.usage.map((count, i) => `V${y(count).toFixed(2)}H${((i + 1) * step).toFixed(2)}`).join("")}V${height}Z`;
    const even = y(total / data.codes).toFixed(2);
    at("usage").append(element("figure", {},
      element("figcaption", {}, `hop ${level.hop}: most used ${format((100 * level.usage[0]) / total, 2)} %, even use ${format(100 / data.codes, 2)} %`),
      svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Use of the codes of hop ${level.hop}` },
        svg("path", { class: "bars", d: path }), svg("line", { class: "even", x1: 0, x2: width, y1: even, y2: even }))));
  }

  showSamples(data.samples);
  at("config").textContent = escaped(JSON.stringify(data.config, null, 2));
}
