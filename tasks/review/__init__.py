"""Review of pseudo masks: the objects, their rank from the worst on, and what was decided on them."""
