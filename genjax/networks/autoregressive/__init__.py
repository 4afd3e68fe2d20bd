"""Causal networks other than transformers: MADE, PixelCNN, PixelRNN, WaveNet, LSTM and GRU."""
