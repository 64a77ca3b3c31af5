"""Decisions of reviewers on pseudo masks, clicks and images: their files, and the last words on each object."""
