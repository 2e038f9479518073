"""Front-ends that make tokens of text or speech, one per file; the file's name is its name in configs."""
