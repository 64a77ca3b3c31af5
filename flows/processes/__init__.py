"""Processes of ours and Prefect's server: started, guarded, ended with us."""
