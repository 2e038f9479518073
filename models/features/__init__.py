"""Features of speech that units are fitted on, one per file; the file's name is its name in configs."""
