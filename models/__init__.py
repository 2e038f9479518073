"""The networks: the memory transformer, VQ-LM and other scorers, codecs and features of speech."""
