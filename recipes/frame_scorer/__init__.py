"""Train a scorer of speech on its frames."""
