"""See what memories keep of a text or a recording of one's own, on a page or in an app."""
