"""Files in and out: images, photos to train on, weights, checkpoints, styles."""
