"""Compare what the bounded cache of a pretrained model keeps."""
