"""Shared by all recipes: configs, the training loop, checkpoints, processes, logs and run folders."""
