"""Scheduled runs: when, why, whether now, and carrying them out."""
