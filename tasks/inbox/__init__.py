"""New point files: pending ones, whether they can be taken in, and the decision on each."""
