"""Sources of text and speech: one public file a source, whose name is its name in configs."""
