"""What a person sees of a finished session: numbers in words, plots, and one self-contained page."""
