"""Convolutional networks: encoders, decoders, U-Net, ladder, and the feature networks of metrics and losses."""
