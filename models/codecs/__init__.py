"""Models that encode a waveform to codes and decode it, one per file."""
