"""Projects apart from the code: their folder, and their plan."""
