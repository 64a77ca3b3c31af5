"""How the steps chain and when they run: the Prefect flow over the DVC stages, and the command line."""
