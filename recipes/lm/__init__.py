"""Language models with a bounded memory: documents as passages, training, evaluation, decoding."""
