"""Compare ways to fill a memory under the same budget."""
