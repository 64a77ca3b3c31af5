"""Image files: read, checked, resized, compared."""
