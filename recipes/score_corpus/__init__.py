"""Score a corpus of texts or recordings into sharded parquet, in one process or on a Ray cluster."""
