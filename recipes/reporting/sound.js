// The page of a scored recording: selects the curve, moves a cursor during playback, and shows the scores at a position.
const signalHelp = {
  surprise: "information that the scorer could not reconstruct from the code and the preceding context",
  rarity: "the same without any context: how rare the sound is in general",
  gain: "rarity minus surprise: how much the context says about the sound; below 0 it misled",
  reuse: "how much likelier the sound is to occur again soon than its frequency says",
};
{
  const { signals, starts, ends, units, codes, plot, unit } = data;
  const at = (id) => document.getElementById(id);
  const [audio, chart, scroll] = [at("audio"), at("chart"), at("scroll")];
  const picture = chart.querySelector("svg");
  const kind = units ? "unit" : "frame";
  const mean = (values) => values.reduce((sum, value) => sum + (value ?? 0), 0) / values.length;
  const tile = (value, label) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, label));
  audio.src = data.sound;
  at("about").textContent = `Seconds ${format(plot.start, 2)} to ${format(plot.start + plot.seconds, 2)}, scored by ${escaped(data.model)}.`;
  at("figures").append(
    tile(integer(starts.length), `${kind}s`),
    ...Object.entries(signals).map(([name, values]) => tile(format(mean(values)), `mean ${name}, ${unit}`)),
    ...(codes ? [tile(integer(new Set(codes.map(String)).size), "different codes used")] : []));

  const choose = (name) => {
    for (const group of chart.querySelectorAll(".signal")) group.classList.toggle("off", group.dataset.signal !== name);
    at("help").textContent = `${name[0].toUpperCase()}${name.slice(1)}: ${signalHelp[name]} (${unit}).`;
  };
  at("tools").append(choice("Show", Object.keys(signals).map((name) => [name, name]), data.chosen, choose));
  choose(data.chosen);

  // `x` takes seconds of the recording; the time of the player begins at 0.
  const x = (second) => plot.left + ((second - plot.start) / plot.seconds) * plot.width;
  const now = () => plot.start + audio.currentTime;
  const row = (second) => {
    let [low, high] = [0, starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= second) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  const cursor = svg("line", { class: "cursor", y1: plot.top, y2: plot.bottom });
  const mark = svg("rect", { class: "at", y: plot.top, height: plot.bottom - plot.top, width: 0 });
  picture.append(mark, cursor);

  const showScores = (index) => {
    mark.setAttribute("x", x(starts[index]));
    mark.setAttribute("width", x(ends[index]) - x(starts[index]));
    tip.show(mark, units ? `unit ${units[index]}` : `frame ${data.first + index}`, [
      ["time", `${format(starts[index], 2)}\u2013${format(ends[index], 2)} s`],
      ...Object.entries(signals).map(([name, values]) => [name, `${format(values[index])} ${unit}`]),
      ...(codes ? [["code", String(codes[index])]] : []),
    ]);
  };
  const hide = () => { mark.setAttribute("width", 0); tip.hide(); };
  const place = () => {
    const [second, where] = [now(), x(now())];
    cursor.setAttribute("x1", where);
    cursor.setAttribute("x2", where);
    chart.setAttribute("aria-valuenow", second.toFixed(2));
    const index = row(second);
    chart.setAttribute("aria-valuetext",
      `${second.toFixed(2)} seconds, ${units ? `unit ${units[index]}` : `frame ${data.first + index}`}, ` +
      Object.entries(signals).map(([name, values]) => `${name} ${format(values[index], 2)}`).join(", "));
  };
  const follow = () => {
    const where = x(now()) - scroll.scrollLeft;
    if (where < 0 || where > scroll.clientWidth - 40) scroll.scrollLeft += where - plot.left;
  };
  const go = (second) => {
    audio.currentTime = Math.min(Math.max(second - plot.start, 0), plot.seconds);
    place();
  };
  chart.setAttribute("aria-valuemin", plot.start.toFixed(2));
  chart.setAttribute("aria-valuemax", (plot.start + plot.seconds).toFixed(2));
  place();

  let frame = 0;
  const step = () => { place(); follow(); frame = audio.paused ? 0 : requestAnimationFrame(step); };
  audio.addEventListener("play", () => { if (!frame) step(); });
  for (const type of ["timeupdate", "seeking", "seeked", "pause", "ended"]) audio.addEventListener(type, place);

  // The position of a pointer in seconds; the picture may be scaled.
  const pointed = (event) => {
    const box = picture.getBoundingClientRect();
    return plot.start + ((((event.clientX - box.left) / box.width) * plot.across - plot.left) / plot.width) * plot.seconds;
  };
  const inside = (second) => second >= plot.start && second <= plot.start + plot.seconds;
  chart.addEventListener("pointermove", (event) => (inside(pointed(event)) ? showScores(row(pointed(event))) : hide()));
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("click", (event) => { if (inside(pointed(event))) go(pointed(event)); });
  chart.addEventListener("keydown", (event) => {
    if (event.key === " ") {
      event.preventDefault();
      if (audio.paused) audio.play();
      else audio.pause();
      return;
    }
    const index = row(now() + 1e-6);
    const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: starts.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const target = Math.min(Math.max(next, 0), starts.length - 1);
    go(starts[target]);
    follow();
    showScores(target);
  });
}
