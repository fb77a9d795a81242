"""What the machine is said to be, from real files of several kinds of machines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import hardware
from tools.contracts import Hardware

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16 hypervisor

processor\t: 1
model name\t: another
flags\t\t: fpu avx512_fp16
"""
GRAVITON = """processor\t: 0
Features\t: fp asimd asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def with_flags(*flags: str) -> Hardware:
    return Hardware(cpu="cpu", architecture="x86_64", cores=2, memory_mb=1000, flags=flags)


@pytest.fixture(autouse=True)
def sixteen_cores_and_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_this_machine_can_be_described():
    found = hardware.detect()
    assert found.cpu
    assert found.cores >= 1
    assert found.memory_mb > 0
    assert found == hardware.detect()
    assert found.digest == Hardware.model_validate(found.model_dump(mode="json")).digest


def test_cpu_and_its_kernel_flags_come_from_the_first_processor_only(tmp_path):
    found = hardware.detect(machine(tmp_path, {"proc/cpuinfo": XEON}))
    assert found.cpu == "Intel(R) Xeon(R) Platinum 8488C"
    assert found.flags == (
        "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"
    )  # fmt: skip


def test_an_arm_core_is_named_by_its_part_number(tmp_path):
    found = hardware.detect(machine(tmp_path, {"proc/cpuinfo": GRAVITON}))
    assert found.cpu == "Neoverse V1"
    assert found.flags == ("asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16")


def test_an_unknown_arm_core_keeps_its_numbers(tmp_path):
    found = hardware.detect(machine(tmp_path, {"proc/cpuinfo": GRAVITON.replace("0xd40", "0xfff")}))
    assert found.cpu == "Arm implementer 0x41 part 0xfff"


def test_without_proc_and_sys_the_platform_answers(tmp_path):
    found = hardware.detect(tmp_path)
    assert found.cpu
    assert found.flags == ()
    assert found.cores == 16


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/pods/a/cpu.max": "300000 100000"}, 3),
        ({"sys/fs/cgroup/pods/cpu.max": "200000 100000", "sys/fs/cgroup/pods/a/cpu.max": "max 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "9900000 100000"}, 16),
    ],
)
def test_the_tightest_cpu_quota_of_cgroup_v2_holds(tmp_path, files, cores):
    root = machine(tmp_path, {"proc/self/cgroup": "0::/pods/a\n", **files})
    assert hardware.detect(root).cores == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 16)])
def test_cpu_quota_of_cgroup_v1_holds(tmp_path, quota, cores):
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/box\n4:memory:/box\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
        },
    )
    assert hardware.detect(root).cores == cores


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "536870912"},
        {"proc/self/cgroup": "4:memory:/box", "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "536870912"},
        # the path is the host's, and only the container's own mount can be seen
        {"proc/self/cgroup": "4:memory:/kubepods/x", "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912"},
    ],
)
def test_a_containers_memory_limit_holds(tmp_path, files):
    assert hardware.detect(machine(tmp_path, files)).memory_mb == 536


@pytest.mark.parametrize(
    ("files", "limit_mb"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, None),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "8589934592"}, 8580),
        # what version 1 reads without a limit
        ({"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_a_memory_limit_is_named_only_where_there_is_one(tmp_path, files, limit_mb):
    assert hardware.detect(machine(tmp_path, files)).memory_limit_mb == limit_mb


@pytest.mark.parametrize(("text", "quota"), [("150000 100000", 1.5), ("max 100000", None)])
def test_a_cpu_quota_keeps_its_fraction(tmp_path, text, quota):
    found = hardware.detect(machine(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": text}))
    assert found.cpu_quota == quota


def test_the_governor_is_named_where_the_kernel_says(tmp_path):
    file = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    assert hardware.detect(machine(tmp_path, {file: "powersave\n"})).governor == "powersave"
    assert hardware.detect(tmp_path / "nothing").governor is None


def test_no_memory_limit_means_all_of_the_machine(tmp_path):
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}
    assert hardware.detect(machine(tmp_path, files)).memory_mb == hardware.detect(tmp_path / "nothing").memory_mb


def test_accelerators_are_what_nvidia_smi_lists(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 570.1'\necho 'NVIDIA L4, 23034 MiB, 570.1'\n")
    tool.chmod(0o755)
    assert hardware.detect(tmp_path).accelerators == ("NVIDIA L4, 23034 MiB, 570.1",) * 2


def test_gpu_memory_of_one_process_is_summed_over_its_gpus(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '12, 100'\necho '123, 7'\necho '12, 50'\necho '13, [N/A]'\n")
    tool.chmod(0o755)
    assert hardware.device_memory_mb(12) == pytest.approx(150 * 1.048576)
    assert hardware.device_memory_mb(13) is None
    assert hardware.device_memory_mb(99) is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ((), False),
        (("NVIDIA A100, 40960 MiB, 570.1, 8.0",), False),
        (("NVIDIA L4, 23034 MiB, 570.1, 8.9",), True),
        (("NVIDIA H200, 143771 MiB, 570.1, 9.0",), True),
        (("NVIDIA B200, 183359 MiB, 580.1, 10.0",), True),
        (("NVIDIA L4, 23034 MiB, 570.1, [N/A]",), False),
    ],
)
def test_fp8_is_told_by_the_compute_capability(rows, expected):
    found = hardware.detect().model_copy(update={"accelerators": rows})
    assert hardware.has_fp8_kernels(found) is expected


@pytest.mark.parametrize("script", ["#!/bin/sh\necho 'no driver'; exit 9\n", "#!/nothing/here\n"])
def test_a_broken_driver_means_no_accelerator(tmp_path, script):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(script)
    tool.chmod(0o755)
    assert hardware.detect(tmp_path).accelerators == ()


def test_a_hanging_driver_means_no_accelerator(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "ACCELERATOR_LIMIT_S", 0.2)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    tool.chmod(0o755)
    assert hardware.detect(tmp_path).accelerators == ()


@pytest.mark.parametrize(
    ("flags", "bf16", "int8", "fp16"),
    [
        (("avx2", "fma"), False, False, False),
        (("avx512f", "avx512_vnni"), False, True, False),
        (("avx_vnni",), False, True, False),
        (("amx_tile", "amx_int8", "amx_bf16"), True, True, False),
        (("avx512_fp16",), False, False, True),
        (("asimd", "asimddp"), False, True, False),
        (("asimdhp", "i8mm", "bf16"), True, True, True),
    ],
)
def test_flags_decide_which_kernels_there_are(flags, bf16, int8, fp16):
    found = with_flags(*flags)
    assert hardware.has_bf16_kernels(found) is bf16
    assert hardware.has_int8_kernels(found) is int8
    assert hardware.has_fp16_kernels(found) is fp16


def test_the_largest_cache_is_the_last_level(tmp_path):
    cache = "sys/devices/system/cpu/cpu0/cache"
    root = machine(tmp_path, {f"{cache}/index0/size": "48K\n", f"{cache}/index3/size": "480M\n"})
    assert hardware.last_level_cache_bytes(root) == 480 * 2**20
    assert hardware.last_level_cache_bytes(tmp_path / "nothing") == 0


def test_library_versions_name_python_and_only_what_is_installed(monkeypatch):
    monkeypatch.setattr(hardware, "LIBRARIES", ("numpy", "no-such-distribution"))
    assert set(hardware.library_versions()) == {"python", "numpy"}


def test_detecting_imports_no_heavy_library():
    code = (
        "import sys; from tools.hardware import detect, library_versions; detect(); library_versions(); "
        "sys.exit(bool({'torch', 'numpy', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
