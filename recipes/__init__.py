"""Recipes: each folder is one, run as ``vqmem <recipe> CONFIG key=value ...``."""
