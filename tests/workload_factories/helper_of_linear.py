"""What `linear.py` imports from beside itself."""

CLASSES = 3
