"""The command line with quick measurements, for tests that look at behaviour and not at numbers.

`python quick_cli.py ARGS...` is `infertune ARGS...` on the runtimes named in `QUICK_RUNTIMES` (commas between them).
If `QUICK_FACTS` names a file, the process writes there what it had imported and how much memory it took.
"""

import atexit
import json
import os
import re
import sys
from pathlib import Path

import agent.cli
import agent.loading
import agent.policy
import agent.session
import tools.limits
import tools.runtimes

LIMITS = {
    "screen_point_s": 1.5,
    "sweep_point_s": 1.5,
    "comparison_rounds": 1,
    "comparison_block_s": 0.02,
    "tolerate_noise": True,
}
"""Points end earlier where the machine is quiet, so their time is only used up where it is not."""
BATCH_SIZES = (1, 4)


def quicken(runtimes, patch):
    """Shorten measurements and leave only these runtimes; `patch` is `setattr` or a monkeypatch's."""

    def availabilities(hardware):
        found = tools.runtimes.availabilities(hardware)
        off = {"available": False, "reason": "switched off"}
        return {name: a if name in runtimes else a.model_copy(update=off) for name, a in found.items()}

    patch(agent.session, "availabilities", availabilities)
    patch(agent.loading, "BenchLimits", lambda **asked: tools.limits.BenchLimits(**{**asked, **LIMITS}))
    patch(agent.policy, "BATCH_SIZES", BATCH_SIZES)


def _write_facts(path):
    status = Path("/proc/self/status").read_text()  # getrusage would count the test runner, which started us
    peak_mb = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6
    path.write_text(json.dumps({"modules": sorted(sys.modules), "peak_mb": peak_mb}))


if __name__ == "__main__":
    if "QUICK_FACTS" in os.environ:
        atexit.register(_write_facts, Path(os.environ["QUICK_FACTS"]))
    quicken(os.environ["QUICK_RUNTIMES"].split(","), setattr)
    agent.cli.main()
