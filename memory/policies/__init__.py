"""One policy a file; the file's name is the policy's name in configs."""
