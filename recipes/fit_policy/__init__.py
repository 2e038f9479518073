"""Fit a policy for a pretrained model: what a cache keeps, learnt from the attention that the model pays."""
