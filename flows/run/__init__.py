"""A run: the flow over the stages of dvc.yaml, what goes before and after, and what people see of it."""
