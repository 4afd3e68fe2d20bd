"""Feature spaces in which sets are compared: classifier, Inception-v3, spectrograms; FID and its statistics."""
