"""A session on disk that nobody ran: a journal and a store filled with invented evidence."""

from tests_support import compared, hardware, measured_trial, spec, workload

from tools.contracts import (
    Availability,
    Decision,
    EdgeCase,
    EdgeCaseResult,
    Evidence,
    EvidenceKind,
    Finding,
    Measured,
    Precision,
    Recipe,
    Step,
)
from tools.evidence import EvidenceStore
from tools.journal import Journal
from tools.limits import BenchLimits
from tools.record import JOURNAL, Loaded, Started
from tools.runtimes import RUNTIME_NAMES
from tools.selection import as_option, cheapest, configurations, not_run_option
from tools.view import SessionView, Tried

EAGER = Recipe(runtime="eager")
FLOAT = Recipe(runtime="openvino", steps=(Step(transform="export-onnx"), Step(transform="convert-openvino")))
INT8 = Recipe(
    runtime="openvino",
    steps=(*FLOAT.steps, Step(transform="quantize-nncf")),
    precision=Precision.INT8_STATIC,
)
CUDA = Recipe(runtime="onnxruntime-cuda")
ID = "20261122-000000-abcd"


def availability(*present):
    return {
        name: Availability(name=name, available=name in present, reason=f"{name} is missing") for name in RUNTIME_NAMES
    }


def view(evidence, *, available=("eager", "openvino"), asked=None):
    return SessionView(
        spec=asked or spec(),
        workload=workload(),
        hardware=hardware(("avx512_vnni",)),
        availability=availability(*available),
        evidence=tuple(evidence),
    )


def edge_cases(recipe):
    return Evidence.of(
        Finding(
            question=f"edges of {recipe.name}",
            kind=EvidenceKind.EDGE_CASES,
            workload="w",
            recipe=recipe,
            parameters={"batch_sizes": [1, 8]},
            hardware="h",
            versions={},
            session="an-earlier-one",
            outcome=Measured(result=EdgeCaseResult(cases=(EdgeCase(name="zeros", passed=True, detail="finite"),))),
            seconds=0.5,
            created="2026-11-20T00:00:00+00:00",
        )
    )


def settled_evidence():
    """Everything that a small session asks for: INT8 at batch 8 wins, and won side by side."""
    return [
        measured_trial(EAGER, 12.0),
        measured_trial(FLOAT, 6.0),
        measured_trial(INT8, 2.0),
        measured_trial(INT8, 2.0, batches=(1, 2, 4, 8)),
        measured_trial(FLOAT, 6.0, batches=(1, 2, 4, 8)),
        compared(INT8, EAGER, 11.0, batch=8),
        compared(INT8, FLOAT, 3.0, batch=8, rival_batch=4),
        edge_cases(INT8),
    ]


def decisions(seen):
    """Two decisions as nodes make them."""
    objective, price = seen.spec.objective, seen.spec.hardware.price_per_hour_usd
    options = configurations(seen.ran)
    winner, why = cheapest(options, objective, price)
    absent = Tried(recipe=CUDA, evidence=(), outcome="failed", reason="there is no \x1b[31mGPU\x1b[0m")
    return (
        Decision(
            id="d01",
            node="planner",
            question="What next?",
            options=(),
            chosen="batch_tuning",
            rule="the first that is open",
            reason="two lead",
        ),
        Decision(
            id="d02",
            node="batch_tuning",
            question="Which batch size?",
            options=(*(as_option(c, objective, price) for c in options), not_run_option(absent)),
            chosen=winner.name,
            rule="smallest cost",
            reason=why,
        ),
    )


def write_session(home, evidence=None, *, asked=None, loaded=True, ends=("finished",), kept=None):
    """Write a session and return its folder; `kept` is the evidence that the store still has."""
    evidence = settled_evidence() if evidence is None else evidence
    seen = view(evidence, asked=asked)
    folder = home / "sessions" / ID
    journal = Journal(folder / JOURNAL)
    started = Started(
        session=ID,
        target="/specs/tuning.yaml",
        created="2026-11-22T00:00:00+00:00",
        tracking_uri="sqlite://",
        fresh=False,
        time_budget_s=None,
        hardware=seen.hardware,
        versions={},
        availability=seen.availability,
        policy="1",
        protocol="2",
    )
    journal.append("started", started.model_dump(mode="json"))
    store = EvidenceStore(home / "evidence.db")
    for item in evidence if kept is None else kept:
        store.put(item)
    if loaded:
        whole = Loaded(spec=seen.spec, workload=seen.workload, loading_s=1.0, training_s=0.0, limits=BenchLimits())
        journal.append("loaded", whole.model_dump(mode="json"))
        for item in evidence:
            journal.append(
                "evidence", {"id": item.id, "question": item.question, "kind": item.kind, "recipe": item.recipe.name}
            )
        for decision in decisions(seen) if evidence else ():
            journal.append("decision", decision.model_dump(mode="json"))
    for kind in ends:
        payload = {"failed": {"reason": "no such file"}, "interrupted": {"decisions": 1}}
        journal.append(kind, payload.get(kind, {}))
    return folder
