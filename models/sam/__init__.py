"""Segment Anything models of the package transformers (the extra `sam`), which draw masks at clicks."""
