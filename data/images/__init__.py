"""Image files: read, checked, compared."""
