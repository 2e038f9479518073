"""What becomes of evicted slots, one compression a file; the file's name is its name in configs."""
