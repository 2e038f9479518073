"""Synthesis: text to speech units by the memory transformer, units to sound by a vocoder."""
