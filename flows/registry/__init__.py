"""The model registry: decisions, versions, roll-backs."""
