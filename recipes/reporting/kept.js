// The slider over time: the tokens of the passage that each memory keeps after each segment; at first, of those `listed`.
// Each move calls `onmove` with memory -> kept tokens.
// Returns null if there are none, else `measure(signal)`, which selects the signal whose mean the panels show.
function drawKept({ tokens, signals = {}, memories }, listed = Object.keys(memories), onmove = () => {}) {
  const names = Object.keys(memories).filter((name) => memories[name].kept?.length);
  if (!names.length) return null;
  const step = Math.min(...names.map((name) => memories[name].segment));
  const steps = Math.max(...names.map((name) => Math.ceil((memories[name].kept.length * memories[name].segment) / step)));
  const shown = new Set(names.filter((name) => listed.includes(name)));
  const panels = names.map((name) => memoryPanel(name, memories[name], tokens, signals));
  const slider = element("input", { type: "range", id: "time", min: 0, max: steps - 1, value: 0, step: 1, "aria-label": "Segments read" });
  const output = element("output", { for: "time" });
  const play = element("button", { id: "play", "aria-pressed": "false" }, "▶ Play");
  let timer = null;
  const show = (index) => {
    const read = Math.min((index + 1) * step, tokens.length);
    slider.value = index;
    const text = `segment ${index + 1} of ${steps} · ${integer(read)} of ${integer(tokens.length)} tokens read`;
    output.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    onmove(Object.fromEntries(panels.map((panel) => [panel.name, panel.show((index + 1) * step)])));
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) >= steps - 1) show(0);
    play.textContent = "❚❚ Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      if (Number(slider.value) < steps - 1) show(Number(slider.value) + 1);
      if (Number(slider.value) >= steps - 1) stop();
    }, 600);
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  document.querySelector("#memory .player").replaceChildren(play, slider, output);
  const choose = () => panels.forEach((panel) => { panel.node.hidden = !shown.has(panel.name); });
  strategyButtons(document.getElementById("memory-legend"), names, shown, choose);
  choose();
  document.getElementById("panels").replaceChildren(...panels.map((panel) => panel.node));
  document.getElementById("memory").hidden = false;
  show(Math.floor(steps / 2));
  return { measure: (signal) => panels.forEach((panel) => panel.measure(signal)) };
}

// One memory: its text, the strip of kept positions, and a line that describes them. `show(read)` moves it in time.
function memoryPanel(name, { capacity, segment, kept }, tokens, signals) {
  const area = element("div", { class: "tokens", tabindex: 0, role: "group", "aria-label": `Tokens that ${name} keeps; arrow keys step through them` });
  const spans = layTokens(area, tokens);
  const line = element("p", { class: "soft" });
  const path = svg("path", { stroke: "currentColor", "stroke-width": 1, fill: "none" });
  const strip = svg("svg", { class: "strip", viewBox: `0 0 ${tokens.length} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, path);
  const node = element("article", { class: "panel", "data-strategy": name, "--c": colourOf(name) },
    element("h3", {}, badgeMark(name), name), line, strip, area);
  const states = [];
  let now = new Set(), read = 0, signal = Object.keys(signals)[0];
  const mean = (values) => values.reduce((sum, value) => sum + (value ?? 0), 0) / values.length;
  const describe = () => {
    const indices = [...now];
    const parts = [`${integer(indices.length)} kept, capacity ${integer(capacity)} slots`];
    if (indices.length) parts.push(`oldest ${integer(read - Math.min(...indices))} tokens back`);
    if (indices.length && signal) parts.push(`mean ${signal} ${format(mean(indices.map((index) => signals[signal][index])), 2)} (of all read ${format(mean(signals[signal].slice(0, read)), 2)})`);
    line.textContent = parts.join(" · ");
  };
  const show = (position) => {
    const index = Math.min(Math.floor(position / segment), kept.length) - 1;
    const indices = (kept[index] ?? []).filter((token) => token in spans);
    read = Math.min((index + 1) * segment, tokens.length);
    now = new Set(indices);
    spans.forEach((span, token) => {
      const state = `${now.has(token) ? "kept" : ""} ${token >= read ? "next" : token >= read - segment ? "now" : ""}`;
      if (state !== states[token]) span.className = states[token] = state; // a page has thousands, and most stay as they are
    });
    path.setAttribute("d", indices.map((token) => `M${token + 0.5} 0V1`).join(""));
    describe();
    const newest = spans[Math.max(0, read - 1)];
    if (newest && !node.hidden) area.scrollTop = newest.offsetTop + newest.offsetHeight - area.clientHeight * 0.8;
    return indices;
  };
  pointAt(area, spans, tokens, (token) => [
    ...signalPairs(signals, token), ["token", integer(token)],
    ["state", now.has(token) ? "kept" : token < read ? "evicted" : "not read yet"],
    ["kept after segments", spanOf(kept, token)],
  ]);
  return { name, node, show, measure: (name) => { signal = name; describe(); } };
}

// The segments after which a token was kept, counted from 1 as the slider does: "3–7".
function spanOf(kept, token) {
  const segments = kept.flatMap((indices, index) => (indices.includes(token) ? [index + 1] : []));
  if (!segments.length) return "none";
  return segments.length === 1 ? String(segments[0]) : `${segments[0]}–${segments.at(-1)}`;
}
