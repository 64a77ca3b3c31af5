"""The rule of promotion, and the registry's files."""
