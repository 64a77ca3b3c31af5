"""A run: the flow over the stages of dvc.yaml, the steps before and after them, and what the UI shows of it."""
