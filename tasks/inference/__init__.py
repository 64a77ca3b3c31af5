"""Networks over the images of a split, and their predictions as files."""
