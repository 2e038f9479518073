"""Speech synthesis: text to units by the memory transformer, units to sound by a vocoder."""
