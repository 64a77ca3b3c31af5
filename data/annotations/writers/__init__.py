"""Writers of label files for other tools, a format each."""
