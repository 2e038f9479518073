// The page of `vqmem score --html`: figures of the text, its heat map, and the tokens with the highest score.
{
  const { tokens, signals, details } = data;
  const tile = (value, label) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, label));
  const mean = (values) => values.reduce((sum, value) => sum + (value ?? 0), 0) / values.length;
  document.getElementById("figures").append(
    tile(integer(tokens.length), "tokens"),
    ...Object.entries(signals).map(([name, values]) =>
      tile(format(mean(values)), `mean ${name}, nats per token (${format(mean(values) / Math.LN2, 2)} bits)`)),
    ...(details.code ? [tile(integer(new Set(details.code).size), "different codes used")] : []));

  const top = document.getElementById("top");
  const title = document.getElementById("top-title");
  heatMap(document.getElementById("map"), tokens, signals, {
    details,
    onsignal(name) {
      const values = signals[name];
      const order = values.map((_, index) => index).sort((a, b) => values[b] - values[a]).slice(0, 24);
      title.textContent = `Highest ${name}`;
      top.replaceChildren(...order.map((index) =>
        element("li", {}, element("code", {}, visible(tokens[index]).trim() || "\u2423"), element("span", {}, format(values[index], 2)))));
    },
  });
  document.getElementById("highest").hidden = !tokens.length;
}
