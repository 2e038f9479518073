"""Overrides that make `vqmem compare demo` tiny."""

TINY = ["capacities=[8]", "passages=7", "shown=40", "lm.passage=96", "lm.batch_size=4", "lm.segment=16"]
TINY += ["lm.eval_passages=3", "lm.train_tokens=3000", "lm.scorer_train.steps=3", "lm.train.steps=4"]
TINY += ["lm.shape={dim: 16, heads: 2, layers: 1}", "lm.front_end.vocab_size=300"]
