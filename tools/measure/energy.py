"""What a request costs in energy: the CPU package's own counter (RAPL), read before and after a window.

The counter is about the whole package: idle power, and whatever else runs, included. Intel and recent AMD processors
have it, virtual machines seldom. Since 2020 Linux lets only root read it (CVE-2020-8694).
Interface: Linux kernel documentation, Power Capping Framework, `/sys/class/powercap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = "sys/class/powercap"


@dataclass(frozen=True)
class EnergyCounter:
    """The counters of all CPU packages.

    Attributes:
        files: `energy_uj` of each package.
        ranges_uj: the largest value of each counter, after which it begins at zero again.
    """

    files: tuple[Path, ...]
    ranges_uj: tuple[int, ...]

    def read_uj(self) -> tuple[int, ...] | None:
        """Return each package's counter in microjoules, or None when one cannot be read any more."""
        try:
            return tuple(_number(file) for file in self.files)
        except (OSError, ValueError):
            return None

    def joules(self, before_uj: Sequence[int] | None, after_uj: Sequence[int] | None) -> float | None:
        """Return the energy between two readings, in joules; a counter may have begun again once.

        At 250 W, a counter of 262 kJ begins again after 17 minutes: windows are far shorter.
        """
        if before_uj is None or after_uj is None:
            return None
        used = (
            after - before if after >= before else after - before + largest
            for before, after, largest in zip(before_uj, after_uj, self.ranges_uj, strict=True)
        )
        return sum(used) / 1e6


def find_counter(root: Path = Path("/")) -> EnergyCounter | str:
    """Find the machine's energy counter.

    Args:
        root: where `/sys` is found.

    Returns:
        The counter, or why there is none, as a sentence with what would help.
    """
    packages = [
        zone for zone in sorted((root / POWERCAP).glob("intel-rapl:*")) if _text(zone / "name").startswith("package")
    ]
    if not packages:
        return "this machine has no energy counter (no package below /sys/class/powercap; virtual machines hide it)"
    files = tuple(zone / "energy_uj" for zone in packages)
    try:
        ranges = tuple(_number(zone / "max_energy_range_uj") for zone in packages)
        for file in files:
            _number(file)
    except PermissionError as error:
        return f"{error.filename} can be read by root only: run as root, or have root run `chmod a+r {error.filename}`"
    except (OSError, ValueError) as error:
        return f"the energy counter cannot be read ({error})"
    return EnergyCounter(files, ranges)


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
