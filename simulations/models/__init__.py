"""Three small models of other kinds than a convolutional network: a vision transformer, an LSTM and a text encoder.

Each has its spec, its code, real data and trained weights: `infertune optimize simulations/models/text.yaml`. The
weights come from `python -m simulations.models.train`.
"""
