"""The review page: its server, and the files that the browser gets (static/)."""
