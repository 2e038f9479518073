"""Fit units of speech."""
