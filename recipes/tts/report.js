// The report of a voice: figures, players and spectrograms.
{
  const at = (id) => document.getElementById(id);
  const { vocoder, speaker, split, clips } = data.figures;
  at("about").textContent = `${integer(clips)} recordings of the ${split} split · ${integer(data.units)} units · ${data.letters.length} characters`;

  const rows = [
    [speaker.perplexity, "perplexity of a step (a unit, or the end of a letter), given the text and the earlier units"],
    [speaker.accuracy, "accuracy of steps"],
    [speaker.duration_error, "mean absolute error of durations, in frames of 20 ms"],
    [vocoder.harmonic_mel_error, "log mel error of copies from units, by harmonic synthesis (nats)"],
    [vocoder.griffin_lim_mel_error, "the same by Griffin-Lim"],
    [vocoder.mel_error_with_text, "the same by harmonic synthesis from units and letters, as for text"],
    [vocoder.rvq_mel_error, "the same by Griffin-Lim from units and RVQ codes"],
    [vocoder.mean_mel_error, "the same for the mean spectrum of each recording, as a baseline"],
  ];
  at("figures").append(element("tbody", {}, rows.filter(([value]) => value !== undefined).map(([value, meaning]) =>
    element("tr", {}, element("td", {}, format(value, 3)), element("td", {}, meaning)))));
  showSamples(data.samples);
  at("config").textContent = escaped(JSON.stringify(data.config, null, 2));
}
