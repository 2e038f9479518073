"""Recognise speech by a language model that reads units and writes letters."""
