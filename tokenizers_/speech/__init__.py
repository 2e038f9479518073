"""What front-ends of speech work with: feature frames and codecs."""
