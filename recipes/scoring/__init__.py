"""Score a text or a recording, and show the scores."""
