"""Sources of images, points and sounds: embedded, from files, from TFDS."""
