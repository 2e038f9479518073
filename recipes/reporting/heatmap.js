// Tokens on the page, coloured by a signal: the scale is linear from the 2nd to the 98th percentile.
const signalHelp = {
  surprise: "information that the scorer could not reconstruct from the code and the preceding context (nats)",
  rarity: "the same without any context: how rare the token is in general (nats)",
  gain: "rarity minus surprise: how much the context says about the token (nats); below 0 it misled",
  reuse: "how much likelier the token is to occur again soon than its frequency says (nats)",
};

// Control characters get a visible symbol; a token without text (a part of a character) gets a dot.
function visible(text) {
  const shown = text.replace(/\r\n/g, "\n").replace(/\n/g, "\u23ce\n").replace(/\t/g, "\u21e5\t");
  return shown.replace(/[\u0000-\u0008\u000b-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
    .replace(/[\u007f-\u009f]/g, "\ufffd") || "\u00b7";
}

// One span per token, in blocks that end with a line, so that the browser can skip invisible blocks of a long text.
function layTokens(area, texts) {
  const spans = [];
  let block = null;
  texts.forEach((text, index) => {
    if (!block) area.append(block = element("div"));
    const span = element("span", { "data-i": index }, visible(text));
    spans.push(span);
    block.append(span);
    if (block.childElementCount >= (text.endsWith("\n") ? 200 : 3000)) block = null;
  });
  area.classList.toggle("far", texts.length > 4000);
  return spans;
}

function quantile(sorted, share) {
  const at = (sorted.length - 1) * share, low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}
function scaleOf(values) {
  const sorted = values.filter(finite).sort((a, b) => a - b);
  if (!sorted.length) return { low: 0, high: 0, diverging: false, strength: () => 0 };
  const [low, high] = [quantile(sorted, 0.02), quantile(sorted, 0.98)];
  const diverging = low < 0, reach = diverging ? Math.max(-low, high) : high - low, zero = diverging ? 0 : low;
  const strength = (value) => (finite(value) && reach ? Math.max(-1, Math.min(1, (value - zero) / reach)) : 0);
  return { low: diverging ? -reach : low, high: diverging ? reach : high, diverging, strength };
}

// What pointing at a token, or stepping to it with the arrow keys, shows about it; `onpick` is for a click and Enter.
function pointAt(area, spans, texts, pairs, onpick = () => {}) {
  let at = -1;
  const show = (index) => {
    spans[at]?.classList.remove("at");
    at = index;
    if (at < 0) return tip.hide();
    spans[at].classList.add("at");
    tip.show(spans[at], visible(texts[at]).trimEnd(), pairs(at));
  };
  // Scrolling by keyboard moves tokens under a resting pointer; this is ignored.
  let last = "";
  const point = (event, index) => {
    const place = `${event.clientX},${event.clientY}`;
    if (place !== last && index !== at) show(index);
    last = place;
  };
  for (const type of ["pointermove", "pointerdown"]) area.addEventListener(type, (event) => point(event, Number(event.target.dataset.i ?? -1)));
  area.addEventListener("pointerleave", (event) => point(event, -1));
  area.addEventListener("blur", () => show(-1));
  area.addEventListener("click", (event) => event.target.dataset.i && onpick(Number(event.target.dataset.i)));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && at >= 0) onpick(at);
    const move = { ArrowRight: 1, ArrowLeft: -1, Home: -spans.length, End: spans.length }[event.key];
    if (!move) return;
    event.preventDefault();
    const next = Math.min(Math.max(at + move, 0), spans.length - 1);
    spans[next].scrollIntoView({ block: "nearest" });
    show(next);
  });
}

const signalPairs = (signals, index) =>
  Object.entries(signals).map(([name, values]) => [name, `${format(values[index])} nats`]);

// Fills `root` with the choice of signal, its legend and the coloured tokens; calls `onsignal(name)` for each choice.
function heatMap(root, texts, signals, { details = {}, tall = false, onsignal = () => {} } = {}) {
  const area = element("div", {
    class: `tokens heat${tall ? " tall" : ""}`, tabindex: 0, role: "group",
    "aria-label": "The text, coloured by score. Arrow keys step from token to token and show its scores.",
  });
  const spans = layTokens(area, texts);
  const scale = element("span", { class: "scale" });
  const help = element("p", { class: "soft" });
  const paint = (name) => {
    const { low, high, diverging, strength } = scaleOf(signals[name]);
    scale.className = `scale${diverging ? " diverging" : ""}`;
    scale.replaceChildren(`\u2264 ${format(low, 2)}`, element("i"), `\u2265 ${format(high, 2)} nats`);
    help.textContent = `${name[0].toUpperCase()}${name.slice(1)}: ${signalHelp[name] ?? "in nats"}.`;
    spans.forEach((span, index) => {
      const value = strength(signals[name][index]);
      span.style.setProperty("--heat", (Math.abs(value) * 100).toFixed(1));
      span.classList.toggle("below", value < 0);
    });
    area.dataset.signal = name;
    onsignal(name);
  };
  const names = Object.keys(signals);
  const picker = names.length ? choice("Colour by", names.map((name) => [name, name]), names[0], paint) : null;
  root.replaceChildren(element("div", { class: "tools" }, picker, names.length ? scale : null), help, area);
  pointAt(area, spans, texts, (index) => [
    ...signalPairs(signals, index),
    ...Object.entries(details).map(([name, values]) => [name, integer(values[index])]),
    ["token", integer(index)],
  ]);
  if (names.length) paint(names[0]);
  return area;
}
