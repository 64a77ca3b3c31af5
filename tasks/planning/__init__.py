"""Derives params.yaml from images, masks, clicks and machine."""
