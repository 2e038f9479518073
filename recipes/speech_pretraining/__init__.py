"""Pretraining of a HuBERT-style encoder of speech."""
