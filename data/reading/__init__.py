"""Read recordings and text files, and find them in folders."""
