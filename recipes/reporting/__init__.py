"""Self-contained HTML pages and what they show."""
