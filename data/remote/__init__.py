"""Files in S3: listing, downloads, and the inbox."""
