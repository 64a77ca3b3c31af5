"""MaskRefineNet: network, crops, use."""
