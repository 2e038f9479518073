"""Recognise speech: a recording, or its units, becomes text with times."""
