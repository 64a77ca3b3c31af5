"""New point files: which wait, whether they are good, what became of each."""
