"""Samples for training: loaded, resized, augmented, split across ranks."""
