"""What the recipes for speech share: normalised text, units, metrics of units."""
