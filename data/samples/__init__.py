"""Samples for training: placed, varied, shared out to ranks."""
