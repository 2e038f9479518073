"""What every recipe runs on: configs, the training loop, checkpoints, processes, logs and the folder of a run."""
