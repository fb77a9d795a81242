"""Latency, accuracy, memory, profile and their statistics."""
