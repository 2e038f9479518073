"""Recognise speech by connectionist temporal classification on waveforms."""
