// What a voice has learnt: figures, players and spectrograms.
{
  const at = (id) => document.getElementById(id);
  const { vocoder, speaker, split, clips } = data.figures;
  at("about").textContent = `${integer(clips)} recordings of the ${split} split · ${integer(data.units)} units · ${data.letters.length} characters`;

  const rows = [
    [speaker.perplexity, "perplexity of a step (a unit, or that a letter is done), from the text and what was said before"],
    [speaker.accuracy, "share of steps whose likeliest outcome is right"],
    [speaker.duration_error, "frames of 20 ms by which durations are wrong, on average"],
    [vocoder.harmonic_mel_error, "log mel error of copies from units, pulses and noise through learnt filters (nats)"],
    [vocoder.griffin_lim_mel_error, "the same by Griffin-Lim"],
    [vocoder.mel_error_with_text, "the same by filters, from units and letters, as for text"],
    [vocoder.rvq_mel_error, "the same by Griffin-Lim from units and RVQ codes"],
    [vocoder.mean_mel_error, "the same where nothing is known but each recording's mean spectrum"],
  ];
  at("figures").append(element("tbody", {}, rows.filter(([value]) => value !== undefined).map(([value, meaning]) =>
    element("tr", {}, element("td", {}, format(value, 3)), element("td", {}, meaning)))));
  showSamples(data.samples);
  at("config").textContent = escaped(JSON.stringify(data.config, null, 2));
}
