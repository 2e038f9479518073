"""What recognises: a file each."""
