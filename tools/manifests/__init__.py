"""Kubernetes manifests of a service, from what was measured of it. Nothing here talks to a cluster."""
