"""A stand-in for the Kubernetes API server: real HTTP on loopback, and the answers that Kubernetes 1.36 gives.

It knows HorizontalPodAutoscalers (autoscaling/v2) and who may do what with them, shows Deployments and pods, and it
can fail in all the ways that a real one does. It needs `kmock` (`pip install kmock`).
"""

from simulations.api_server.access import Rule
from simulations.api_server.server import ApiServer, Request

__all__ = ["ApiServer", "Request", "Rule"]
