"""The training loop, and what the trainings put into it."""
