"""The sections of report.html, and the figures in tables."""
