// Recordings in several versions, each with its spectrogram and a player, in the element "samples" of the section "sounds".
function showSamples(samples) {
  document.getElementById("sounds").hidden = !samples.length;
  for (const sample of samples) {
    document.getElementById("samples").append(element("h3", {}, sample.name),
      ...(sample.text ? [element("p", {}, sample.text)] : []),
      element("div", { class: "sample" }, sample.versions.map(({ label, sound, picture }) =>
        element("figure", { class: "version" },
          element("figcaption", {}, label), element("img", { src: picture, alt: `Spectrogram, ${label}` }),
          element("audio", { controls: true, preload: "metadata", src: sound, "aria-label": `${sample.name}, ${label}` })))));
  }
}
