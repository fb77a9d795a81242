"""Running user code, transforms and measurements where they cannot hurt the session.

A `Worker` is a warm process that has imported the slow libraries once. For each task it forks a child, so a task
costs milliseconds to start, begins with clean memory, and can be killed with everything it started.
"""

from tools.worker.channel import emit, stage
from tools.worker.outcome import Returned, TaskOutcome, was_killed_from_outside
from tools.worker.supervisor import Worker

__all__ = [
    "LIGHT_MODULES",
    "TORCH_MODULES",
    "Returned",
    "TaskOutcome",
    "Worker",
    "emit",
    "stage",
    "was_killed_from_outside",
]

LIGHT_MODULES = ("numpy", "tools.contracts")
TORCH_MODULES = (*LIGHT_MODULES, "torch", "torchvision")
