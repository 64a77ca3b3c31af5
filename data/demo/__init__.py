"""The drawn demo data set, and splits of real ones."""
