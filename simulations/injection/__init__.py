"""Hostile texts in every place that infertune reads other people's words from, before a model that obeys them all.

python -m simulations.injection          # a sample of places and texts, in about a minute
python -m simulations.injection --all    # every text in every place
"""
