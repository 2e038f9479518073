"""The bounded memory as the key-value cache of pretrained `transformers` models."""
