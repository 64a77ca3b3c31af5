"""The synthetic demo data set, and splits of real data sets."""
