"""Workloads of `workload_factories/learners.py`."""

from pathlib import Path

from tools.contracts import WorkloadInfo
from tools.spec import WorkloadSpec
from tools.workloads.loading import materialize

LEARNERS = str(Path(__file__).parent / "workload_factories" / "learners.py")


def learners(function):
    """Return a reference to a function of `learners.py`."""
    return f"{LEARNERS}:{function}"


def load(home, *, model="teacher", training="items", evaluation="held_out", students=(), **changes):
    """Materialize a workload whose functions are named by their names in `learners.py`; None leaves a part out."""
    fields = {
        "name": "learners",
        "model": {"factory": learners(model)},
        "evaluation": {"factory": learners(evaluation)},
        "training": None if training is None else {"factory": learners(training)},
        **changes,
    }
    spec = WorkloadSpec.model_validate({name: value for name, value in fields.items() if value is not None})
    known = [s if s.startswith("same") or ":" in s else learners(s) for s in students]
    return WorkloadInfo.model_validate(materialize(spec.model_dump(mode="json"), str(home), 300, known))
