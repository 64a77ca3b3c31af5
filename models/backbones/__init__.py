"""Feature extractors, and their normalisation layers."""
