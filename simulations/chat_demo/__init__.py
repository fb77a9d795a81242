"""A whole chat, from a model to a changed autoscaler, as a transcript: with a scripted model, and by the menu."""
