"""`infertune doctor`: what this machine has, and what each missing thing would enable."""

from __future__ import annotations

from typing import Any

from tools import plugins
from tools.contracts import Availability
from tools.hardware import (
    detect,
    has_bf16_kernels,
    has_fp8_kernels,
    has_fp16_kernels,
    has_int8_kernels,
    library_versions,
)
from tools.measure.energy import find_counter
from tools.measure.noise import LOOK_S, NoiseMeter
from tools.runtimes import availabilities, library

_EXTRAS = (
    ("nncf", "nncf", "INT8 for OpenVINO"),
    ("mlflow", "mlflow", "the record of every session"),
    ("langgraph", "langgraph", "the agent's graph"),
)


def examine() -> dict[str, Any]:
    """Return hardware, kernels, runtimes, tools and versions, JSON-ready. Imports none of the heavy libraries."""
    hardware = detect()
    kernels = [
        Availability(
            name="BF16 kernels",
            available=has_bf16_kernels(hardware),
            reason="no avx512_bf16, amx_bf16 or ARM bf16 on this CPU",
            enable="a CPU with them runs BF16 recipes at up to twice the float speed",
        ),
        Availability(
            name="INT8 kernels",
            available=has_int8_kernels(hardware),
            reason="no VNNI, AMX or ARM dot product on this CPU",
            enable="a CPU with them runs INT8 recipes several times faster",
        ),
        Availability(
            name="FP16 kernels",
            available=has_fp16_kernels(hardware),
            reason="no avx512_fp16 or amx_fp16 on this CPU",
            enable="FP16 recipes",
        ),
        Availability(
            name="GPU",
            available=bool(hardware.accelerators),
            version=", ".join(hardware.accelerators) or None,
            reason="nvidia-smi lists none",
            enable="the runtimes eager-cuda, compiled-cuda, onnxruntime-cuda and onnxruntime-tensorrt (written, but "
            "not yet run on a GPU)",
        ),
        Availability(
            name="FP8 kernels",
            available=has_fp8_kernels(hardware),
            reason="no GPU of compute capability 8.9 or later (Ada, Hopper)",
            enable="linear layers in FP8 on compiled-cuda (written, but not yet run on a GPU)",
        ),
    ]
    counter = find_counter()
    kernels.append(
        Availability(
            name="energy counter",
            available=not isinstance(counter, str),
            reason=counter if isinstance(counter, str) else None,
            enable="joules per request",
        )
    )
    tools = []
    for name, distribution, enables in _EXTRAS:
        found = library(name, name, distribution)
        tools.append(found if found.available else found.model_copy(update={"enable": f"{found.enable}: {enables}"}))
    return {
        "hardware": hardware.model_dump(mode="json"),
        "noise": NoiseMeter(hardware.cores).wait_until_quiet(LOOK_S),
        "kernels": [_dump(k) for k in kernels],
        "runtimes": [_dump(a) for a in availabilities(hardware).values()],
        "plugins": [_dump(a) for a in plugins.examine()],
        "tools": [_dump(t) for t in tools],
        "versions": library_versions(),
    }


def _dump(found: Availability) -> dict[str, Any]:
    clean = found.model_copy(update={"reason": None, "enable": None}) if found.available else found
    return clean.model_dump(mode="json")


def print_report(found: dict[str, Any]) -> None:
    """Print what `examine` found."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    hardware = found["hardware"]
    console.print(
        f"[bold]{escape(hardware['cpu'])}[/bold], {hardware['cores']} cores, {hardware['memory_mb'] / 1000:.1f} GB"
    )
    console.print("instruction sets: " + escape(", ".join(hardware["flags"]) or "none that matter here"))
    limits = {
        "frequency governor": hardware["governor"],
        "CPU quota": hardware["cpu_quota"] and f"{hardware['cpu_quota']:g} CPUs",
        "memory limit": hardware["memory_limit_mb"] and f"{hardware['memory_limit_mb']:,.0f} MB",
    }
    console.print("; ".join(f"{name}: {escape(str(value or 'none that shows'))}" for name, value in limits.items()))
    console.print(f"noise right now: {escape(found['noise'] or 'none, it is quiet enough to measure')}")
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    for column in ("", "here", "version, or why not and what would enable it"):
        table.add_column(column, overflow="fold")
    for group in ("kernels", "runtimes", "plugins", "tools"):
        for item in found[group]:
            detail = item["version"] or ""
            if not item["available"]:
                detail = "; ".join(text for text in (item["reason"], item["enable"]) if text)
            table.add_row(escape(item["name"]), "yes" if item["available"] else "no", escape(detail))
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    console.print(f"versions: {escape(versions)}")
