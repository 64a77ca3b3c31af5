"""DVC: what is done, missing or damaged, and what is sent and fetched. Its internals are used here alone."""
