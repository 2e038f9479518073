"""Language models with a bounded memory: passages of documents, training, evaluation, decoding."""
