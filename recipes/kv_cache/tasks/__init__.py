"""Tasks of RULER: a text, a question and what the answer must contain; one task a file."""
