"""The parts of games: losses, penalties, augmentation of what the discriminator sees, spectral normalisation."""
