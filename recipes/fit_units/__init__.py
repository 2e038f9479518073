"""Train a text language model with a bounded memory, and the scorer that fills it."""
