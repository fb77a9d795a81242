"""`infertune evidence`: what a person sees, and what a script gets."""

import json
import os
import pty
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from evidence_support import everything_in, finding, trial, write_folder, write_raw, write_session
from typer.testing import CliRunner

from agent.cli_evidence import app
from tools.contracts import (
    Crashed,
    EndToEnd,
    Evidence,
    EvidenceKind,
    Finding,
    LayerProfile,
    Measured,
    ProfileResult,
    Recipe,
    Roofline,
    Step,
    Unstable,
)
from tools.errors import InfertuneError
from tools.evidence import EVIDENCE, EvidenceStore

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def home(tmp_path):
    """A home with two sessions; the second used what the first measured, and had a crash."""
    home = tmp_path / "home"
    write_raw(home, "q1-aa.npz", n=300)
    first = trial("q1", raw="q1-aa.npz")
    build = finding("q2", kind=EvidenceKind.BUILD)
    crash = finding("q3", Crashed(stage="timing batch 1", signal="SIGSEGV"), session="s2")
    write_session(home, "s1", [first, build])
    write_session(home, "s2", [first, crash])
    return home


@pytest.fixture
def say(home):
    """Run a command in that home, and return what it says."""

    def run(*arguments, stdin=None):
        done = CliRunner().invoke(app, [*map(str, arguments), "--home", str(home)], input=stdin)
        if isinstance(done.exception, InfertuneError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def profile():
    layer = LayerProfile(path="0", operator="Conv2d", ms=1.25, share=0.6, flops=2e6, bytes_moved=3e3, gflops_per_s=1.6)
    return ProfileResult(
        layers=(layer,),
        forward_ms=2.0,
        flops=2e6,
        share_of_peak=0.02,
        roofline=Roofline(fp32_gflops=162, memory_gb_per_s=11.0),
        end_to_end=EndToEnd(
            preprocess_ms=None, transfer_ms=0.1, forward_ms=2.0, postprocess_ms=0.2, notes=("One.", "Two.")
        ),
        operators={"convolution": 1.0},
        bottleneck="Convolutions.",
    )


def put(home, one):
    EvidenceStore(home / EVIDENCE).put(one)
    return one.id


def ids(home):
    return {row.question: row.id for row in EvidenceStore(home / EVIDENCE).rows()}


def test_a_list_has_one_line_for_each_the_newest_last(home, say):
    lines = say("list").splitlines()
    known = ids(home)
    assert [line.split()[:3] for line in lines] == [
        [known["q1"], "trial", "eager"],
        [known["q2"], "build", "failed"],
        [known["q3"], "trial", "eager"],
    ]
    assert "batch 1: p50 14.2 ms, 70.0/s" in lines[0]
    assert lines[0].endswith("(s1, 2026-11-22T00:00:00+00:00, 1.5 s)")
    assert "crashed (SIGSEGV) while timing batch 1" in lines[2]


@pytest.mark.parametrize(
    ("filters", "questions"),
    [
        (["--session", "s1"], ["q1", "q2"]),
        (["--session", "s2"], ["q1", "q3"]),
        (["--kind", "build"], ["q2"]),
        (["--workload", "w"], ["q1", "q2", "q3"]),
        (["--session", "s2", "--kind", "build"], []),
    ],
)
def test_a_list_can_be_narrowed(home, say, filters, questions):
    told = json.loads(say("list", *filters, "--output", "json"))
    assert [e["id"] for e in told["evidence"]] == [ids(home)[q] for q in questions]
    assert told["damaged"] == 0


def test_a_list_for_scripts_has_units_in_its_names(say):
    first, *_ = json.loads(say("list", "--output", "json"))["evidence"]
    assert first.keys() == {"id", "kind", "recipe", "outcome", "workload", "session", "created", "seconds"}


def test_workloads_and_sessions_that_are_unknown_are_said(say):
    with pytest.raises(InfertuneError, match=r"no workload 'x'\. There are: w"):
        say("list", "--workload", "x")
    with pytest.raises(InfertuneError, match="no session 'x'"):
        say("list", "--session", "x")


def test_only_the_rows_that_are_listed_are_read(home, say, monkeypatch):
    EvidenceStore(home / EVIDENCE).put_all(finding(f"more {i}", session="s9").body for i in range(5000))
    read = []
    whole = Evidence.from_body
    monkeypatch.setattr(Evidence, "from_body", lambda body: read.append(body) or whole(body))
    assert len(say("list", "--session", "s2").splitlines()) == 2
    assert len(read) == 2


def test_finding_nothing_is_said(home, say):
    assert say("list", "--kind", "sweep") == f"No such evidence in {home}.\n"


def test_numbers_that_json_lacks_are_shown(home, say):
    one = trial("q5")
    point = one.outcome.result.points[0].model_copy(update={"mean_ms": float("inf")})
    result = one.outcome.result.model_copy(update={"points": (point,), "load_ms": float("nan")})
    identity = put(home, finding("q5", Measured(result=result)))
    assert "mean: infinite" in say("show", identity)
    told = json.loads(say("show", identity, "--output", "json"), parse_constant=pytest.fail)
    assert told["outcome"]["result"]["load_ms"] == "NaN"


def test_damaged_rows_are_counted(home, say):
    with sqlite3.connect(home / EVIDENCE) as connection:
        connection.execute("UPDATE findings SET body = replace(body, 'SIGSEGV', 'SIGBUS')")
    connection.close()
    assert len(say("list").splitlines()) == 3
    assert "1 more cannot be read" in say("list")
    with pytest.raises(InfertuneError, match="was damaged on disk"):
        say("show", ids(home)["q3"])


def test_looking_at_an_empty_home_makes_nothing(home, say):
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert say("list") == f"No evidence in {home}.\n"
    with pytest.raises(InfertuneError, match="no evidence 'abc'"):
        say("show", "abc")
    assert list(home.iterdir()) == []


def test_everything_of_one_is_shown_with_intervals_and_units(home, say):
    text = say("show", ids(home)["q1"][:10])
    for line in (
        "trial of eager fp32",
        "  question: q1",
        "    p50: 14.2 ms [14.1, 14.3] n=300",
        "  throughput: 70.0/s [69.3, 70.7] n=300",
        "  peak memory: 200 MB",
        "  hardware: h",
        "    torch: 2",
        f"  raw samples: {home / 'raw' / 'q1-aa.npz'}\n    latency_ms_1: 300\n    output_0: 5 x 10\n",
        "  used by: s1, s2\n",
    ):
        assert line in text
    assert "\x1b" not in text


def test_what_is_shown_to_scripts_is_the_evidence_itself(home, say):
    told = json.loads(say("show", ids(home)["q1"], "--output", "json"))
    assert told["outcome"]["result"]["points"][0]["latency_ms"]["p50"]["value"] == 14.2
    assert told["raw_arrays"] == {"latency_ms_1": [300], "output_0": [5, 10]}
    assert told["used_by"] == ["s1", "s2"]


def test_steps_and_their_settings_are_shown(home, say):
    recipe = Recipe(
        steps=(Step(transform="export_onnx", settings={"opset": 18}), Step(transform="fuse")), runtime="build"
    )
    plain = finding("q5", kind=EvidenceKind.BUILD)
    build = Evidence.of(Finding(**{**plain.model_dump(exclude={"id"}), "recipe": recipe}))
    text = say("show", put(home, build))
    assert "build of export_onnx + fuse" in text
    assert "transform: export_onnx" in text
    assert "opset: 18" in text


def test_a_profile_is_shown_one_line_a_layer(home, say):
    text = say("show", put(home, finding("q6", Measured(result=profile()), kind=EvidenceKind.PROFILE)))
    assert "layers 1: path 0, operator Conv2d, ms 1.25, share 0.600, flops 2,000,000" in text
    assert "gflops per s 1.60" in text
    assert "memory gb per s: 11.0" in text
    assert "preprocess: \N{EN DASH}" in text
    assert "notes: One.\n      notes: Two.\n" in text


def test_why_something_is_unstable_is_shown(home, say):
    one = trial("q7")
    unstable = finding("q8", Unstable(result=one.outcome.result, reason="others took the CPU"))
    text = say("show", put(home, unstable))
    assert "outcome: unstable\n    reason: others took the CPU" in text
    assert "unstable, batch 1: p50 14.2 ms" in say("list")


@pytest.mark.parametrize(("damage", "said"), [(None, "(not there)"), (b"half", "(damaged)")])
def test_raw_samples_that_are_lost_are_said(home, say, damage, said):
    file = home / "raw" / "q1-aa.npz"
    file.unlink() if damage is None else file.write_bytes(damage)
    assert f"q1-aa.npz {said}" in say("show", ids(home)["q1"])


def test_sessions_whose_journals_cannot_be_read_are_said(home, say):
    (home / "sessions" / "s2" / "journal.jsonl").write_text("{}\n")
    text = say("show", ids(home)["q1"])
    assert "used by: s1\n" in text
    assert "perhaps by: s2 (the journal cannot be read)" in text


def test_a_beginning_that_is_not_unique_is_said(say):
    with pytest.raises(InfertuneError, match="no evidence ''"):
        say("show", "")
    with pytest.raises(InfertuneError, match="no evidence 'xyz'"):
        say("show", "xyz")


def test_of_several_with_one_beginning_some_are_named(home, say):
    seen = {}
    for i in range(40):
        one = finding(f"twin {i}")
        seen.setdefault(one.id[0], []).append(put(home, one))
    beginning, twins = max(seen.items(), key=lambda item: len(item[1]))
    with pytest.raises(InfertuneError, match=f"pieces of evidence begin with '{beginning}'"):
        say("show", beginning)
    assert len(twins) > 1


def test_text_from_outside_does_not_act_on_the_terminal(home, say):
    evil = finding("q9", Crashed(stage="\x1b[31mred\nline", signal="S"))
    text = say("list") + say("show", put(home, evil))
    assert "\x1b" not in text


def test_tidying_up_without_a_person_needs_a_word(home, say):
    put(home, finding("q4", session="gone"))
    before = everything_in(home)
    with pytest.raises(InfertuneError, match=r"nobody to ask\. Say --yes"):
        say("gc")
    assert "     1 rows" in say("gc", "--dry-run")
    assert everything_in(home) == before
    assert len(ids(home)) == 4
    assert "Freed" in say("gc", "--yes")
    assert len(ids(home)) == 3
    assert say("gc", "--yes") == "Nothing to delete: sessions need all that is there.\n"


def test_old_sessions_go_when_asked(home, say):
    assert "2 sessions" in say("gc", "--older-than", "0", "--yes")
    assert list((home / "sessions").iterdir()) == []
    assert ids(home) == {}


def test_a_home_that_is_not_there_is_not_made(tmp_path):
    done = CliRunner().invoke(app, ["gc", "--yes", "--home", str(tmp_path / "nowhere")])
    assert done.exit_code == 0
    assert "There is no" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "rows"), [(b"n\n", 4), (b"y\n", 3)])
def test_on_a_terminal_a_person_is_asked(home, answer, rows):
    put(home, finding("q4", session="gone"))
    write_folder(home, "artifacts", ".making-x")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from agent.cli_evidence import app; app()"
        done = subprocess.run(
            [sys.executable, "-c", code, "gc", "--home", home], stdin=theirs, capture_output=True, text=True, check=True
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Delete this from" in done.stdout
    assert len(ids(home)) == rows


def test_a_session_is_carried_to_another_home(home, say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = say("export", "s2")
    assert "Session s2: 2 pieces of evidence, 1 raw files" in told
    assert "Paths of this machine are named in it." in told
    assert "Wrote s2.infertune.zip" in told
    with pytest.raises(InfertuneError, match="--force"):
        say("export", "s2")
    say("export", "s2", "--force", "--no-raw", "-o", tmp_path / "small.zip")
    done = CliRunner().invoke(app, ["import", "s2.infertune.zip", "--home", str(tmp_path / "other")])
    assert done.output.startswith("Imported session s2: 2 pieces of evidence, 1 raw files.\nNext: infertune replay s2")
    assert "is there already" in say("import", "small.zip")
    with pytest.raises(InfertuneError, match="--max-mb"):
        say("import", "small.zip", "--max-mb", "0.001")


def test_the_commands_start_without_anything_heavy():
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from agent.cli_evidence import app\n"
        "try: app(['list', '--home', '/nowhere'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({'torch', 'mlflow', 'matplotlib', 'scipy', 'sklearn', 'onnx', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "No evidence in /nowhere.\n\n"
