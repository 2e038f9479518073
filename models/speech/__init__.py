"""Networks that only speech needs."""
