// What evictions cost: the evicted tokens ranked, and for the chosen one the later tokens whose loss changes, with arcs to it.
// Within the app, whose page this is in a frame, any evicted token can be tried: the app is asked, and answers.
function drawConsequences({ tokens, memories, consequences, quality }) {
  const at = (id) => document.getElementById(id), live = window.parent !== window;
  at("full").textContent = format(quality.full);
  const best = quality.capacities.map((_, i) => Math.min(...Object.values(quality.rows).map((row) => row[i] ?? Infinity)));
  at("quality").append(
    element("thead", {}, element("tr", {}, element("th", { class: "text" }, "Strategy"), quality.capacities.map((slots) => element("th", {}, `${slots} slots`)))),
    element("tbody", {}, Object.entries(quality.rows).map(([name, row]) => element("tr", {}, element("th", {}, name),
      row.map((value, i) => element("td", {}, value === best[i] ? element("b", {}, format(value)) : format(value)))))));

  const area = at("cost-text"), spans = layTokens(area, tokens), arcs = at("arcs"), height = 60;
  const shown = (place) => visible(tokens[place]).trim() || "\u2423";
  let strategy = Object.keys(consequences)[0], change = new Map(), asked = null;
  arcs.setAttribute("viewBox", `0 0 ${tokens.length} ${height}`);
  const mark = (gone, later) => {
    spans.forEach((span) => span.classList.remove("gone", "saved", "lost"));
    change = new Map(later);
    if (gone !== null) spans[gone].classList.add("gone");
    later.forEach(([place, value]) => spans[place].classList.add(value > 0 ? "saved" : "lost"));
    const most = Math.max(...later.map(([, value]) => Math.abs(value)), 1e-9);
    arcs.replaceChildren(...later.map(([place, value]) => svg("path", {
      d: `M${place + 0.5} ${height}C${place} ${height * 0.1} ${gone} ${height * 0.1} ${gone + 0.5} ${height}`,
      stroke: value > 0 ? "var(--good)" : "var(--bad)", "stroke-width": 1 + (3 * Math.abs(value)) / most,
    })));
  };
  const pick = ({ at: gone, saved, later }) => {
    for (const button of at("costs").querySelectorAll("button")) button.setAttribute("aria-pressed", String(Number(button.dataset.at) === gone));
    mark(gone, later);
    at("cost-said").textContent = `With “${shown(gone)}” (token ${integer(gone)}) kept, the loss of all later tokens changes by ${signed(-saved, 2)} nats.`;
    const first = spans[Math.min(...later.map(([place]) => place), tokens.length - 1)];
    area.scrollTop = first.offsetTop - area.clientHeight * 0.4;
  };
  const list = (chosen) => {
    consequences[strategy].sort((one, other) => other.saved - one.saved);
    at("costs").replaceChildren(...consequences[strategy].map((effect) => element("li", {},
      element("button", { "aria-pressed": "false", "data-at": effect.at, onclick: () => pick(effect) },
        element("code", {}, shown(effect.at)), element("span", {}, `${signed(-effect.saved, 2)} nats`)))));
    at("cost-said").textContent = "";
    mark(null, []);
    if (chosen ?? consequences[strategy][0]) pick(chosen ?? consequences[strategy][0]);
  };
  // The last token is only predicted.
  const isEvicted = (place) => {
    const { kept, segment } = memories[strategy];
    return place < tokens.length - 1 && kept.some((positions, i) => (i + 1) * segment > place && !positions.includes(place));
  };
  const ask = (place) => {
    asked = place;
    const known = consequences[strategy].find((effect) => effect.at === place);
    if (known) return pick(known);
    if (!isEvicted(place)) at("cost-said").textContent = `“${shown(place)}” (token ${integer(place)}) was never evicted by ${strategy}.`;
    else if (live) {
      at("cost-said").textContent = `The model reads the passage again with “${shown(place)}” kept …`;
      window.parent.postMessage({ vqmem: { strategy, at: place } }, "*");
    } else at("cost-said").textContent = `“${shown(place)}” was not tried. The app, “vqmem explore --model …”, tries any token.`;
  };
  window.addEventListener("message", ({ source, data: message }) => {
    const answer = message?.vqmem;
    if (source !== window.parent || !answer || answer.costs) return;
    if (answer.error) return void (at("cost-said").textContent = answer.error);
    const known = consequences[answer.strategy];
    if (!known.some((effect) => effect.at === answer.effect.at)) known.push(answer.effect);
    if (answer.strategy === strategy && answer.effect.at === asked) list(answer.effect);
  });
  pointAt(area, spans, tokens, (place) => [
    ["token", integer(place)],
    ...(change.has(place) ? [["loss", `${signed(-change.get(place))} nats`]] : []),
    ["state", isEvicted(place) ? "evicted" : "never evicted"],
  ], ask);
  at("cost-more").hidden = !live;
  at("cost-tools").append(choice("Evicted by", Object.keys(consequences).map((name) => [name, name]), strategy, (name) => { strategy = name; list(); }));
  list();
}
