"""DVC: which stages are up to date, what is missing or damaged, sending and fetching. No other package imports dvc's
internals."""
