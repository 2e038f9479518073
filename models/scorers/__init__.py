"""Models that score how much each token matters, one per file; the file's name is its name in configs."""
