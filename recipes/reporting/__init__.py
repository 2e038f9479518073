"""Self-contained HTML pages, heat maps and sounds."""
