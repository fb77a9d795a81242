"""What a text is planted in: a home, an API server, a Prometheus, and an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from simulations.api_server import ApiServer
from simulations.injection.scene import Scene

NAMESPACE, HPA = "shop", "resnet50"
Manifest: TypeAlias = dict[str, Any]


@dataclass
class Ground:
    """What a text is planted in."""

    home: Path
    kubeconfig: Path
    server: ApiServer
    web: Web
    """Stands in for Prometheus."""
    endpoint_error: str = ""
    """What the model's endpoint says in place of an answer, once."""


@dataclass
class Web:
    """A Prometheus that answers what it is told to."""

    url: str
    status: int = 200
    body: Manifest = field(default_factory=dict)


Plant: TypeAlias = Callable[[Ground, str], Scene]
