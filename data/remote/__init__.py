"""Files in S3: listed, fetched, watched."""
