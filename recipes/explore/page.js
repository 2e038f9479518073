// The page of `vqmem explore`, from the trace in `data`: a heat map or a recording, and the slider over time.
{
  const at = (id) => document.getElementById(id);
  let memories = null;
  const marks = data.plot ? layMarks() : null;
  memories = drawKept(data, data.strategies, (kept) => marks?.show(kept));
  if (!data.plot) heatMap(at("map"), data.tokens, data.signals, { tall: true, onsignal: (name) => memories?.measure(name) });
  if (data.quality) drawCosts();
  else if (at("waiting")) askForCosts();

  function drawCosts() {
    drawConsequences(data);
    if (data.following) drawFollowing(data.following);
  }

  // Within the app, the model reads on while the page is looked at.
  function askForCosts() {
    window.addEventListener("message", ({ source, data: message }) => {
      const { costs, error } = message?.vqmem ?? {};
      if (source !== window.parent || data.quality) return;
      if (error) at("waiting").textContent = error;
      if (!costs) return;
      Object.assign(data, costs);
      at("waiting").hidden = true;
      at("costs-part").hidden = false;
      drawCosts();
    });
    window.parent.postMessage({ vqmem: { costs: true } }, "*");
  }

  // The recording: its signals one at a time, the pieces that a memory keeps, and players of what each keeps at the end.
  function layMarks() {
    const { left, width, seconds, bottom } = data.plot, picture = document.querySelector("#chart svg");
    const x = (second) => left + (second / seconds) * width;
    const path = picture.appendChild(svg("path", { class: "kept", stroke: "light-dark(#c4500a, #ff9352)", "stroke-width": 8, fill: "none" }));
    at("audio").src = data.sound;
    const signal = (name) => {
      for (const group of document.querySelectorAll("#chart .signal")) group.classList.toggle("off", group.dataset.signal !== name);
      memories?.measure(name);
    };
    const signals = Object.keys(data.signals);
    at("sound-tools").append(choice("Show", signals.map((name) => [name, name]), signals[0], signal));
    signal(signals[0]);
    let chosen = data.strategies[0], now = {};
    const show = (kept = now) => {
      now = kept;
      path.setAttribute("d", (now[chosen] ?? []).map((i) => `M${x(data.starts[i]).toFixed(1)} ${bottom - 6}H${x(data.ends[i]).toFixed(1)}`).join(""));
    };
    at("sound-tools").append(choice("Mark what is kept by", data.strategies.map((name) => [name, name]), chosen, (name) => { chosen = name; show(); }));
    at("kept-sounds").append(...Object.entries(data.kept_sounds).map(([name, source]) =>
      element("label", {}, element("span", {}, name), element("audio", { controls: true, preload: "metadata", src: source, "aria-label": `What ${name} keeps at the end` }))));
    return { show };
  }
}
