"""What this machine is: the part of evidence that says where numbers hold.

Only files below `/proc` and `/sys` are read, and `nvidia-smi` is asked where there is one: no heavy library is
imported, so that every command can afford it.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.contracts import Hardware

KERNEL_FLAGS = (
    # x86
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    # Arm
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "sve",
    "i8mm",
    "bf16",
)
"""The CPU features by which libraries choose their kernels, as Linux spells them in `/proc/cpuinfo`."""

LIBRARIES = (
    "infertune",
    "torch",
    "torchvision",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "openvino",
    "nncf",
    "torch-pruning",
    "torchao",
    "numpy",
)
"""Distributions whose version can change a measurement: infertune's own, since its transforms may."""

NO_LIMIT_BYTES = 2**62
"""An unlimited memory control group of version 1 reads 2^63 less a page."""

FP8_CAPABILITY = (8, 9)
"""Compute capability, from which on tensor cores take E4M3 and E5M2 (CUDA C++ programming guide, table of features)."""

ACCELERATOR_LIMIT_S = 5.0
"""A driver that hangs must not hang every command."""

_ARM_CORES = {"0xd0c": "Neoverse N1", "0xd40": "Neoverse V1", "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2"}


def detect(root: Path = Path("/")) -> Hardware:
    """Describe this machine as far as this process may use it.

    Args:
        root: where `/proc` and `/sys` are found.

    Returns:
        Cores after affinity and container quota, memory after the container's limit.
    """
    cpu, flags = _cpu(root)
    quotas = (*_quotas_v2(root), *_quotas_v1(root))
    limits = _memory_limits(root)
    return Hardware(
        cpu=cpu,
        architecture=platform.machine(),
        cores=_cores(quotas),
        memory_mb=_memory_mb(limits),
        flags=flags,
        accelerators=_accelerators(),
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        cpu_quota=min(quotas, default=None),
        memory_limit_mb=_rounded_mb(min(limits)) if limits else None,
    )


def library_versions() -> dict[str, str]:
    """Return the version of Python and of each installed library that decides how fast a model runs."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def has_bf16_kernels(hardware: Hardware) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; elsewhere BF16 is emulated and slower than FP32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"}.intersection(hardware.flags))


def has_int8_kernels(hardware: Hardware) -> bool:
    """Whether the CPU has 8-bit dot products that accumulate in 32 bits (VNNI, AMX, Arm dot product or I8MM)."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}.intersection(hardware.flags))


def has_fp16_kernels(hardware: Hardware) -> bool:
    """Whether the CPU computes in float16 rather than only converting from and to it."""
    return bool({"avx512_fp16", "amx_fp16", "asimdhp"}.intersection(hardware.flags))


def has_fp8_kernels(hardware: Hardware) -> bool:
    """Whether the first GPU multiplies 8-bit floats: from compute capability 8.9 (Ada, Hopper) on."""
    capability = hardware.accelerators[0].rpartition(",")[2].strip() if hardware.accelerators else ""
    major, _, minor = capability.partition(".")
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= FP8_CAPABILITY


def last_level_cache_bytes(root: Path = Path("/")) -> int:
    """Return the size of the first CPU's largest cache, or 0 where the kernel does not say."""
    sizes = [0]
    for file in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = _read(file)
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
        digits = text.rstrip("KMG")
        if digits.isdigit():
            sizes.append(int(digits) * unit)
    return max(sizes)


def _cpu(root: Path) -> tuple[str, tuple[str, ...]]:
    """Return the first CPU's name and those of its flags that decide kernels."""
    fields: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, separator, value = line.partition(":")
                if separator:
                    fields[key.strip().lower()] = value.strip()
                elif "flags" in fields or "features" in fields:
                    break  # the next blocks are the other CPUs, hundreds on a large machine
    except OSError:
        fields = {}
    present = set((fields.get("flags") or fields.get("features") or "").split())
    name = fields.get("model name") or _arm_name(fields) or platform.processor() or platform.machine()
    return name, tuple(flag for flag in KERNEL_FLAGS if flag in present)


def _arm_name(fields: dict[str, str]) -> str | None:
    part = fields.get("cpu part")
    if part is None:
        return None
    return _ARM_CORES.get(part, f"Arm implementer {fields.get('cpu implementer', '?')} part {part}")


def _cores(quotas: tuple[float, ...]) -> int:
    """Return the logical CPUs of this process: its affinity, or its CPU quota where that is less.

    A fractional quota is rounded down: one thread too many is throttled in every period, which is what a p99 sees.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min((affinity, *(math.floor(quota) for quota in quotas))))


def _quotas_v2(root: Path) -> Iterator[float]:
    for folder in control_groups(root, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _quotas_v1(root: Path) -> Iterator[float]:
    for folder in control_groups(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # an unlimited quota reads -1
            yield int(quota) / int(period)


def _memory_mb(limits: tuple[float, ...]) -> float:
    """Return the memory in MB that this process may use."""
    import psutil

    return _rounded_mb(min((float(psutil.virtual_memory().total), *limits)))


def _memory_limits(root: Path) -> tuple[float, ...]:
    """Return the memory limits in bytes of this process's control groups; without one, version 1 has a huge number."""
    limits: list[float] = []
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        texts = (_read(folder / name) for folder in control_groups(root, controller))
        limits.extend(float(text) for text in texts if text.isdigit() and int(text) < NO_LIMIT_BYTES)
    return tuple(limits)


def _rounded_mb(size_bytes: float) -> float:
    """Return MB to three significant digits, rounded down.

    Another kernel on the same machine reserves a few MB more or less, which must not make it another machine.
    """
    megabytes = size_bytes / 1e6
    step = 10.0 ** max(0, math.floor(math.log10(megabytes)) - 2) if megabytes >= 1 else 1.0
    return math.floor(megabytes / step) * step


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield this process's control group and all above it; the tightest limit on the way holds.

    Args:
        root: where `/proc` and `/sys` are found.
        controller: of a version 1 hierarchy (`cpu`, `memory`), or empty for the unified one of version 2.

    A container may see the path that its group has on the host, which does not exist below its own mount: missing
    folders are passed over, and the mount itself is always looked at.
    """
    mount = root / "sys/fs/cgroup" / controller
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            relative = Path(path.lstrip("/"))
            yield from (mount / folder for folder in (relative, *relative.parents))
            return


def device_memory_mb(pid: int) -> float | None:
    """Return the GPU memory that a process holds, in 10^6 bytes, summed over GPUs.

    Written from `nvidia-smi --help-query-compute-apps`; never run on a GPU while this was developed. In a container the
    driver may list the host's process numbers, among which ours is not found.

    Returns:
        None without an NVIDIA driver, or where it does not list the process.
    """
    used_mib: list[int] = []
    for row in _nvidia_smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"):
        owner, _, mib = (part.strip() for part in row.partition(","))
        if owner == str(pid) and mib.isdigit():
            used_mib.append(int(mib))
    return sum(used_mib) * 2**20 / 1e6 if used_mib else None


def _accelerators() -> tuple[str, ...]:
    """Return name, memory, driver and compute capability of each NVIDIA GPU; nothing where there is none.

    Nor where its driver is out of order, or too old to know its capability (before 2021).
    """
    return _nvidia_smi("--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader")


def _nvidia_smi(*query: str) -> tuple[str, ...]:
    """Return the rows that `nvidia-smi` answers; none where it is missing, fails or hangs."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        answer = subprocess.run(
            [command, *query], capture_output=True, text=True, timeout=ACCELERATOR_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
