"""Where numbers hold: the machine, and what can be used on it."""

from __future__ import annotations

from tools.contracts.base import Contract, digest_of


class Hardware(Contract):
    """The machine that the numbers belong to. Two machines with one digest are taken for the same."""

    cpu: str
    architecture: str
    cores: int
    """Logical CPUs this process may use (affinity and container quota considered)."""
    memory_mb: float
    flags: tuple[str, ...]
    """The instruction sets that decide which kernels run."""
    accelerators: tuple[str, ...] = ()
    governor: str | None = None
    """How the kernel scales the CPU's frequency, where it says."""
    cpu_quota: float | None = None
    """CPUs' worth of time that the container may use, where it is limited: beyond it, it is throttled."""
    memory_limit_mb: float | None = None
    """The container's memory limit, where it has one."""

    @property
    def digest(self) -> str:
        """Fingerprint of the machine."""
        return digest_of(self.model_dump(mode="json"))


class Availability(Contract):
    """Whether a runtime or a tool can be used here, and if not, why, and what would enable it."""

    name: str
    available: bool
    version: str | None = None
    reason: str | None = None
    enable: str | None = None
