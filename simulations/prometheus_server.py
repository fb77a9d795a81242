"""A real Prometheus on loopback, filled with a past: for tests, and for trying infertune without a cluster.

`promtool` turns OpenMetrics text into blocks, and Prometheus serves them; it may go on scraping. Nothing leaves the
machine, and nothing is left behind. `simulations.prometheus_week` writes such a text for a service that never was.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.errors import UnavailableError

START_S = 30.0
"""A Prometheus that is not ready by then will not be."""
_LARGEST_BLOCK = "336h"
"""promtool reads the whole text once for every block: with two hours, its default, a week takes 20 times longer."""
_ATTEMPTS = 3
"""Another process may take the free port before Prometheus does."""


def prometheus_missing() -> str | None:
    """Return which program is not installed, in a sentence; None if a server can be started."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found on the PATH" if missing else None


@contextmanager
def prometheus(openmetrics: str, directory: Path, *, scrape: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a Prometheus that holds these samples, and stop it at the end.

    Args:
        openmetrics: samples with timestamps, as `prometheus_week.service_life` writes them; ends with `# EOF`.
        directory: an empty folder for the data; the caller removes it.
        scrape: `HOST:PORT` of what it asks for `/metrics`, every five seconds.

    Yields:
        The URL, `http://127.0.0.1:PORT`.

    Raises:
        UnavailableError: Prometheus is not installed, does not take the text, or does not start.
    """
    missing = prometheus_missing()
    if missing is not None:
        raise UnavailableError(f"{missing}.", fix="Install it: `apt-get install prometheus` brings both.")
    data = _backfill(openmetrics, directory)
    process, url = _start(data, directory, scrape)
    try:
        yield url
    finally:
        _stop(process)


def _backfill(openmetrics: str, directory: Path) -> Path:
    """Write the samples as blocks, and return their folder."""
    directory.mkdir(parents=True, exist_ok=True)
    text, data = directory / "samples.om", directory / "data"
    text.write_text(openmetrics, encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", f"--max-block-duration={_LARGEST_BLOCK}", "openmetrics"]
    done = subprocess.run([*command, str(text), str(data)], capture_output=True, text=True, check=False)
    text.unlink()
    if done.returncode != 0:
        raise UnavailableError(f"promtool does not take the samples: {done.stderr.strip()}", where=str(directory))
    data.mkdir(exist_ok=True)  # no samples, no blocks
    return data


def _start(data: Path, directory: Path, scrape: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], str]:
    config = directory / "prometheus.yml"
    jobs = [{"job_name": "live", "scrape_interval": "5s", "static_configs": [{"targets": list(scrape)}]}]
    config.write_text(json.dumps({"scrape_configs": jobs if scrape else []}), encoding="utf-8")  # JSON is YAML
    log = directory / "prometheus.log"
    for _ in range(_ATTEMPTS):
        port = _free_port()
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=100y",  # samples keep their age, whatever the clock says
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        if _ready(process, url):
            return process, url
        _stop(process)
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
    raise UnavailableError(f"Prometheus did not start. It said: {said or 'nothing'}", where=str(directory))


def _ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until it answers queries; False if it ended, or took too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            # Another process's server may have taken the port: only a Prometheus answers this.
            with opener.open(f"{url}/api/v1/query?query=1", timeout=1) as answer:
                if json.load(answer)["status"] == "success":
                    return True
        except (OSError, ValueError):
            time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
