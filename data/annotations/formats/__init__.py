"""Readers of masks, one format a file; `data.annotations.read` chooses among them."""
