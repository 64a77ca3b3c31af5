"""Services: the Prefect server and deployment, the watcher of the inbox, the reports."""
