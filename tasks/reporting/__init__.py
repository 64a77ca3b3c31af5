"""The pieces of report.html."""
