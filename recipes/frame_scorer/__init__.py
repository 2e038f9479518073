"""Train a scorer on frames of speech."""
