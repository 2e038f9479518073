"""What becomes of slots that do not stay, one way a file; the file's name is its name in configs."""
