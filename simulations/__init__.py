"""Scenarios, comparisons and examples that people run."""
