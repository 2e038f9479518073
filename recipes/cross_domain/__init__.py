"""Compare strategies across domains: text, code, speech, and pretrained models."""
