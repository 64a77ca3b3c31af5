"""What keeps the pipeline going: server, watcher, reports."""
