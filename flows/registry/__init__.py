"""Which model is in use: decided, kept, brought back."""
