"""Models that turn a waveform into codes and back, one a file."""
