"""The bounded memory as a key-value cache for pretrained `transformers` models."""
