"""Commands about which labels to make."""
