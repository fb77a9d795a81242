"""A model with one layer that does not survive INT8, to see what is done about it."""
