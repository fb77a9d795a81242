"""The whole chain of scaling on one machine, against a real Prometheus and a stand-in for the API server."""
