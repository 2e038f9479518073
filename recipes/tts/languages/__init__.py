"""Languages for text normalisation. Each is a file that is named by its code and defines `LANGUAGE`."""
