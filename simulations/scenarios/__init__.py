"""Scenarios for autoscaler settings: YAML files, each with a lesson. Played by `infertune simulate scenario`."""
