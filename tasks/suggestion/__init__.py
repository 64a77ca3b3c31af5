"""What to label next: the images whose labels would help most."""
