"""Compare what memories of the same content keep as text and as speech."""
