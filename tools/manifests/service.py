"""What the manifests of one service are made from: every figure with the sentence that says where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator

from tools.contracts import Contract, HpaSpec
from tools.errors import SpecError
from tools.manifests.names import check_labels, check_name, check_namespace, check_object_name, parse_image
from tools.spec import describe_validation_error

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

FILE = "service.json"
"""Name of the file in a tree of manifests that holds its service, so that the tree can be made again from itself."""


class Sourced(Contract, Generic[T]):
    """A figure, and where it comes from."""

    value: T
    source: str
    """In words: `measured in session X: ...`, `the spec's ...`, or `a default: ...`."""


class Service(Contract):
    """One model server under one autoscaler."""

    schema_version: Literal[1] = 1
    name: str
    """Of the Deployment, its Service, and all that is named after it."""
    hpa_name: str
    hpa_labels: dict[str, str] = Field(default_factory=dict)
    """Of the autoscaler in use, which stay."""
    namespace: str
    """Of production; staging has its own."""
    workload: str
    session: str | None = None
    """Which session measured it; None if nothing was measured."""
    recipe: str | None = None
    artifact: str | None = None
    """Digest of the model's files."""
    image: str
    """Of the model server, with a tag or a digest."""
    job_image: str
    """Of infertune with the workload in it."""
    cpu_milli: Sourced[int]
    """CPU of a replica in thousandths of a core: both requested and the limit."""
    memory_mib: Sourced[int]
    """Memory of a replica: both requested and the limit."""
    gpus: Sourced[int]
    max_batch: Sourced[int]
    startup_s: Sourced[int]
    """How long a replica may take to become ready before it is started again."""
    termination_s: Sourced[int]
    """How long a replica may take to finish what it has accepted."""
    scrape_s: Sourced[int]
    """How often Prometheus reads a pod's metrics."""
    slo_ms: Sourced[float] | None = None
    """p99 that is promised; None if nothing is."""
    autoscaler: Sourced[HpaSpec]
    """minReplicas, maxReplicas, metrics and behavior."""
    prometheus_url: Sourced[str]
    job_memory_mib: Sourced[int]
    job_deadline_s: Sourced[int]

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return _checked(check_name, value)

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        return _checked(check_namespace, value)

    @field_validator("hpa_name")
    @classmethod
    def _hpa_name(cls, value: str) -> str:
        return _checked(check_object_name, value)

    @field_validator("hpa_labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        return _checked(check_labels, value)

    @field_validator("image", "job_image")
    @classmethod
    def _image(cls, value: str) -> str:
        _checked(parse_image, value)
        return value

    @field_validator("cpu_milli", "memory_mib", "max_batch", "startup_s", "scrape_s", "job_memory_mib")
    @classmethod
    def _positive(cls, value: Sourced[int]) -> Sourced[int]:
        if value.value < 1:
            msg = f"must be positive, not {value.value}"
            raise ValueError(msg)
        return value

    @property
    def origin(self) -> str:
        """What all of it comes from, in words."""
        return f"session {self.session}" if self.session else "the spec alone: nothing was measured"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what an earlier tree was made from.

        Raises:
            SpecError: it is not there, or not what `infertune manifests` writes.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise SpecError(f"cannot be read ({error.strerror}).", where=str(path)) from None
        except ValidationError as error:
            raise SpecError(describe_validation_error(error, cls), where=str(path)) from None


def _checked(check: Callable[[A, str], R], value: A) -> R:
    """Turn the error of a check into one that pydantic places."""
    try:
        return check(value, "service")
    except SpecError as error:
        raise ValueError(error.what) from None
