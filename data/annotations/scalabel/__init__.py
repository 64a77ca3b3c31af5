"""Scalabel JSON: read, checked, written."""
