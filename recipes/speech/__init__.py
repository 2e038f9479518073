"""Shared by the speech recipes: text normalisation, units, metrics of units."""
