"""Train a VQ-VAE on speech, whose codes a language model can then read and write."""
