"""A folder for `PYTHONPATH`: Python imports `sitecustomize` from it in every process of a session."""
