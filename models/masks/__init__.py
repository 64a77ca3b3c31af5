"""Mathematics on masks."""
