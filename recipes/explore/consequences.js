// What evictions cost: the evicted tokens ranked, and for the chosen one the later tokens whose loss changes, with arcs to it.
function drawConsequences({ tokens, consequences, quality }) {
  const at = (id) => document.getElementById(id);
  at("full").textContent = format(quality.full);
  const best = quality.capacities.map((_, i) => Math.min(...Object.values(quality.rows).map((row) => row[i] ?? Infinity)));
  at("quality").append(
    element("thead", {}, element("tr", {}, element("th", { class: "text" }, "Strategy"), quality.capacities.map((slots) => element("th", {}, `${slots} slots`)))),
    element("tbody", {}, Object.entries(quality.rows).map(([name, row]) => element("tr", {}, element("th", {}, name),
      row.map((value, i) => element("td", {}, value === best[i] ? element("b", {}, format(value)) : format(value)))))));

  const spans = layTokens(at("cost-text"), tokens), arcs = at("arcs"), height = 60;
  arcs.setAttribute("viewBox", `0 0 ${tokens.length} ${height}`);
  const clear = () => spans.forEach((span) => { span.className = ""; span.removeAttribute("title"); });
  const pick = (button, { at: gone, later }) => {
    for (const other of at("costs").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    clear();
    spans[gone].className = "gone";
    const most = Math.max(...later.map(([, change]) => Math.abs(change)), 1e-9);
    arcs.replaceChildren(...later.map(([place, change]) => {
      spans[place].className = change > 0 ? "saved" : "lost";
      spans[place].title = `${signed(-change)} nats if “${visible(tokens[gone]).trim()}” is kept`;
      return svg("path", {
        d: `M${place + 0.5} ${height}C${place} ${height * 0.1} ${gone} ${height * 0.1} ${gone + 0.5} ${height}`,
        stroke: change > 0 ? "var(--good)" : "var(--bad)", "stroke-width": 1 + (3 * Math.abs(change)) / most,
      });
    }));
    const first = spans[Math.min(...later.map(([place]) => place), tokens.length - 1)];
    at("cost-text").scrollTop = first.offsetTop - at("cost-text").clientHeight * 0.4;
  };
  const list = (name) => {
    const buttons = consequences[name].map((effect) => {
      const button = element("button", { "aria-pressed": "false", onclick: () => pick(button, effect) },
        element("code", {}, visible(tokens[effect.at]).trim() || "\u2423"), element("span", {}, `${signed(-effect.saved, 2)} nats`));
      return element("li", {}, button);
    });
    at("costs").replaceChildren(...buttons);
    arcs.replaceChildren();
    clear();
    if (consequences[name].length) pick(buttons[0].firstChild, consequences[name][0]);
  };
  const names = Object.keys(consequences);
  at("cost-tools").append(choice("Evicted by", names.map((name) => [name, name]), names[0], list));
  list(names[0]);
}
