"""Compare memory strategies at equal capacity."""
