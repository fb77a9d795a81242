"""The command line: what it says, what it leaves on disk, and how it ends, above all when the input is wrong."""

import json
import os
import resource
import subprocess
import sys

import pytest
import torch
import yaml
from quick_cli import quicken
from sample_result import sample_result
from session_support import HPA, QUICK_CLI, TRAFFIC, names_in, write_spec

from tools.spec import TuningSpec

HEAVY = ("torch", "mlflow", "langchain", "langchain_core", "langgraph", "numpy", "onnx", "onnxruntime", "openvino")
USER = """
import numpy as np
import torch

def build():
    return torch.nn.Linear(4, 3)

def data():
    for _ in range(3):
        yield np.ones((8, 4), np.float32), np.zeros(8, np.int64)
"""
MODEL = {"factory": "user.py:build"}
DATA = {"factory": "user.py:data"}


@pytest.fixture
def infertune(commands, capsys, monkeypatch, tmp_path):
    commands.install(monkeypatch)
    quicken(("eager",), monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: commands.run(capsys, monkeypatch, *arguments)


def refused(answer, *expected):
    """Check that a command ended as a user's mistake does: exit code 2, one sentence, and no traceback."""
    assert answer.exit_code == 2, answer
    assert answer.err.startswith("infertune: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.out + answer.err
    for text in expected:
        assert text in answer.err


# --- commands that look ----------------------------------------------------------------------------------------


def test_help_is_quick_because_it_imports_nothing_heavy():
    program = (
        "import sys, agent.cli\n"
        "sys.argv = ['infertune', '--help']\n"
        "try:\n"
        "    agent.cli.main()\n"
        "except SystemExit as ended:\n"
        f"    print('heavy:', sorted(set(sys.modules) & set({[*HEAVY, 'pydantic']!r})), ended.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: [] 0\n")
    for command in (
        *("optimize", "init", "check", "doctor", "graph", "schema", "ui"),
        *("sessions", "resume", "sync", "replay", "what-if", "explain", "evidence"),
    ):
        assert command in done.stdout


def test_init_writes_a_spec_and_its_schema_and_overwrites_nothing(infertune, tmp_path):
    assert infertune("init").exit_code == 0
    spec = TuningSpec.model_validate(yaml.safe_load((tmp_path / "tuning.yaml").read_text()))
    assert spec.objective.p99_ms == 50
    assert (
        json.loads((tmp_path / "tuning.schema.json").read_text())["properties"].keys() == type(spec).model_fields.keys()
    )
    assert names_in(tmp_path) == ["tuning.schema.json", "tuning.yaml"]
    (tmp_path / "tuning.yaml").write_text("mine")
    refused(infertune("init"), "tuning.yaml: is there already", "--force")
    assert (tmp_path / "tuning.yaml").read_text() == "mine"
    assert infertune("init", "--force").exit_code == 0
    assert (tmp_path / "tuning.yaml").read_text() != "mine"


def test_what_init_writes_becomes_usable_by_writing_the_two_functions(infertune, tmp_path):
    infertune("init")
    (tmp_path / "model.py").write_text(USER)
    (tmp_path / "data.py").write_text(USER.replace("def data", "def evaluation"))
    assert infertune("check", "tuning.yaml").exit_code == 0


def test_check_says_what_it_found_and_writes_nothing(infertune, tmp_path):
    write_spec(tmp_path, traffic={"trace": "traffic.csv"}, hpa={"file": "hpa.yaml"})
    (tmp_path / "traffic.csv").write_text(TRAFFIC)
    (tmp_path / "hpa.yaml").write_text(HPA)
    before = names_in(tmp_path)
    answer = infertune("check", "tuning.yaml", "--home", "home")
    assert (answer.exit_code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "tuning.yaml: valid"
    assert "model: torch fp32, 1,765 parameters" in lines
    assert "inputs: input_0 float32 (batch, 3, 16, 16)" in lines
    assert "outputs: output_0 float32 (batch, 5)" in lines
    assert "top1: 1 on the first 16 items" in lines
    assert lines[-1] == "The model ran on one batch. Next: infertune optimize tuning.yaml"
    assert names_in(tmp_path) == before


def test_graph_is_drawn_with_every_node(infertune):
    drawn = infertune("graph").out
    assert drawn.splitlines()[0] == "---"
    assert "graph TD" in drawn
    for node in (
        "__start__",
        "profiler",
        "planner",
        "runtime_evaluation",
        "quantization_evaluation",
        "compression_evaluation",
        "batch_tuning",
        "confirmation",
        "scaling_recommendation",
        "report",
        "__end__",
    ):
        assert f"{node}(" in drawn
    assert "profiler --> planner;" in drawn
    assert "planner -.-> batch_tuning;" in drawn


def test_doctor_lists_the_machine_for_people_and_for_programs(infertune):
    found = json.loads(infertune("doctor", "--output", "json").out)
    assert found["hardware"]["cores"] >= 1
    by_name = {r["name"]: r for r in found["runtimes"]}
    assert by_name["eager"]["available"]
    for group in ("kernels", "runtimes", "tools"):
        assert all(i["available"] or i["reason"] for i in found[group])
    text = infertune("doctor").out
    assert found["hardware"]["cpu"] in text.replace("\n", " ")
    assert all(name in text for name in by_name)


@pytest.mark.parametrize(("of", "field"), [("spec", "workload"), ("result", "verdict")])
def test_schemas_are_json_schemas(infertune, of, field):
    schema = json.loads(infertune("schema", of).out)
    assert schema["type"] == "object"
    assert field in schema["required"]


def test_sessions_are_listed_whatever_became_of_them(infertune, tmp_path):
    assert "no sessions in" in infertune("sessions", "--home", "home").out
    assert not (tmp_path / "home").exists()
    result = sample_result()
    for name, content in (
        ("20260101-000000-aaaa", result.model_dump_json()),
        ("20260102-000000-bbbb", None),
        ("20260103-000000-cccc", '{"schema_version": 1'),
    ):
        folder = tmp_path / "home" / "sessions" / name
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "result.json").write_text(content)
    answer = infertune("sessions", "--home", "home")
    _, finished, unfinished, broken, why, *_ = answer.out.splitlines()
    assert (answer.exit_code, answer.err) == (0, "")
    assert finished.split()[:3] == ["20260101-000000-aaaa", result.workload, "MET"]
    assert unfinished.split() == ["20260102-000000-bbbb", "never", "began"]
    assert broken.split() == ["20260103-000000-cccc", "unreadable"]
    assert why.startswith("    result.json cannot be read: ")


def test_ui_without_a_store_says_what_to_do_first(infertune, tmp_path):
    refused(infertune("ui", "--home", "home"), "mlflow.db: there is no MLflow store yet", "infertune optimize")
    assert not (tmp_path / "home").exists()


# --- specs that cannot be used: nothing is written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objective": {"p99": 5}}, ["objective.p99: unknown field. Did you mean `p99_ms`?"]),
        ({"objectives": {}}, ["objectives: unknown field. Did you mean `objective`?"]),
        ({"objective": {"p99_ms": "fast"}}, ["objective.p99_ms:", "number", "'fast'"]),
        ({"objective": {"p99_ms": -1}}, ["objective.p99_ms:", "greater than 0", "-1"]),
        ({"objective": {"minimize": "beauty"}}, ["objective.minimize:", "'cost', 'latency' or 'size'"]),
        ({"hardware": {"price_per_hour_usd": 0}}, ["hardware.price_per_hour_usd:", "greater than 0"]),
        ({"hardware": None}, ["hardware: is missing."]),
        (
            {"workload": {"name": "w", "model": {**MODEL, "onnx": "m.onnx"}, "evaluation": DATA}},
            ["workload.model: give exactly one of factory, onnx, pt2, torchscript (found: factory, onnx)"],
        ),
        (
            {"workload": {"name": "w", "model": MODEL, "evaluation": DATA, "metric": "top3"}},
            ["workload.metric: unknown metric 'top3'", "top1"],
        ),
        ({"traffic": {"trace": "no.csv"}}, ["no.csv"]),
        ({"traffic": {"trace": "bad.csv"}}, ["bad.csv", "3"]),
        ({"hpa": {"file": "no.yaml"}}, ["no.yaml"]),
        ({"hpa": {"file": "bad.yaml"}}, ["bad.yaml"]),
        ({"hpa": {"file": "deployment.yaml"}}, ["deployment.yaml", "HorizontalPodAutoscaler"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("command", ["check", "optimize"])
def test_a_spec_that_cannot_be_used_is_refused_by_its_field(infertune, tmp_path, command, changes, expected):
    (tmp_path / "bad.csv").write_text("second,rps\n0,5\n60,many\n")
    (tmp_path / "bad.yaml").write_text("kind: [HorizontalPodAutoscaler\n")
    (tmp_path / "deployment.yaml").write_text(HPA.replace("HorizontalPodAutoscaler", "Deployment"))
    write_spec(tmp_path, **changes)
    refused(infertune(command, "tuning.yaml", "--home", "home"), *expected)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("none.yaml", ["none.yaml: no such file", "infertune init"]),
        ("digits-resnet5", ["'digits-resnet5'", "Bundled: digits-resnet50"]),
        ("broken.yaml", ["broken.yaml: is not valid YAML", "line 1"]),
        ("list.yaml", ["list.yaml: must be a mapping"]),
        ("empty.yaml", ["empty.yaml: must be a mapping"]),
        ("binary.yaml", ["binary.yaml: cannot be read"]),
        (".", [".: cannot be read", "directory"]),
        ("folder.yaml", ["folder.yaml: cannot be read"]),
    ],
)
@pytest.mark.parametrize("command", ["check", "optimize"])
def test_something_that_is_no_spec_is_refused(infertune, tmp_path, command, target, expected):
    (tmp_path / "broken.yaml").write_text("workload: [")
    (tmp_path / "list.yaml").write_text("- workload")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.yaml").mkdir()
    refused(infertune(command, target, "--home", "home"), *expected)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "arguments",
    [("optimise",), ("optimize",), ("optimize", "digits-tiny", "--time-budget", "0"), ("schema", "trial"), ("--what",)],
)
def test_a_command_that_does_not_exist_is_refused(infertune, arguments):
    answer = infertune(*arguments)
    assert answer.exit_code == 2
    assert "Usage:" in answer.err
    assert answer.out == ""


# --- models and data that cannot be used: the log stays, and nothing half-written ------------------------------


def bad_output(body):
    return USER.replace(
        "return torch.nn.Linear(4, 3)",
        f"return type('Net', (torch.nn.Linear,), {{'forward': lambda self, x: {body}}})(4, 3)",
    )


@pytest.mark.parametrize(
    ("code", "workload", "expected"),
    [
        (None, {}, ["user.py: no such file"]),
        (USER, {"model": {"factory": "user.py:biuld"}}, ["user.py", "no function `biuld`", "Did you mean `build`?"]),
        ("raise ValueError('not today')", {}, ["user.py:1", "importing it raised ValueError: not today"]),
        (USER.replace("Linear(4, 3)", "Linear(4)"), {}, ["user.py:6", "calling `build` raised TypeError"]),
        ("import tools.mine\n" + USER, {}, ["user.py:1", "`tools` is infertune's own package", "Rename"]),
        (bad_output("x.sum(1)"), {}, ["top1 needs outputs of shape (n, classes)"]),
        (bad_output("x[:, :3] / 0 * 0"), {}, ["NaN or infinity in `output_0`"]),
        (USER.replace("range(3)", "range(0)"), {}, ["user.py:data", "no items"]),
        (USER.replace("(8, 4)", "(8, 5)"), {}, ["user.py", "cannot be multiplied", "input_0 float32 (5,)"]),
        (USER.replace("np.zeros(8", "np.zeros(7"), {}, ["user.py:data", "8", "7"]),
        (USER, {"model": {"onnx": "cut.onnx"}}, ["cut.onnx", "damaged"]),
        (USER, {"model": {**MODEL, "weights": "pickle.pt"}}, ["pickle.pt", "refused"]),
        (USER, {"evaluation": {"npz": "no.npz"}}, ["no.npz: no such file"]),
    ],
    ids=[
        "missing file",
        "missing function",
        "raises",
        "factory raises",
        "named like ours",
        "metric does not fit",
        "not finite",
        "no data",
        "other shape",
        "other length",
        "truncated onnx",
        "pickle",
        "missing npz",
    ],
)
def test_a_workload_that_cannot_be_used_is_refused_by_its_place(infertune, tmp_path, code, workload, expected):
    if code is not None:
        (tmp_path / "user.py").write_text(code)
    (tmp_path / "tools.py").touch()
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    torch.save({"weight": print}, tmp_path / "pickle.pt")
    write_spec(tmp_path, workload={"name": "bad", "model": MODEL, "evaluation": DATA, **workload})
    answer = infertune("optimize", "tuning.yaml", "--home", "home", "--output", "json")
    refused(answer, *expected)
    assert answer.out == ""
    left = {str(p.relative_to(tmp_path / "home")).split("/")[0] for p in (tmp_path / "home").rglob("*") if p.is_file()}
    assert left == {".lock", "evidence.db", "sessions"}
    assert "could not be loaded: " in infertune("sessions", "--home", "home").out


# --- a home that cannot be written -----------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["file", "file/below", "/proc/home"])
@pytest.mark.parametrize("given", ["--home", "INFERTUNE_HOME"])
def test_a_home_that_cannot_be_written_is_named(infertune, monkeypatch, tmp_path, home, given):
    (tmp_path / "file").write_text("mine")
    write_spec(tmp_path)
    if given == "--home":
        answer = infertune("optimize", "tuning.yaml", "--home", home)
    else:
        monkeypatch.setenv("INFERTUNE_HOME", home)
        answer = infertune("optimize", "tuning.yaml")
    refused(answer, home, "point INFERTUNE_HOME to a folder that you can write")
    assert (tmp_path / "file").read_text() == "mine"
    listed = infertune("sessions", "--home", home)
    assert listed.exit_code == 0
    assert "Traceback" not in listed.err


@pytest.mark.parametrize("database", ["evidence.db", "checkpoints.db"])
def test_a_damaged_database_is_named(infertune, tmp_path, database):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / database).write_text("no database, whatever its name says" * 100)
    write_spec(tmp_path)
    refused(infertune("optimize", "tuning.yaml", "--home", "home", "--output", "json"), database, "not a database")


@pytest.mark.parametrize(("classes", "items", "place"), [(50_000, 8, "artifacts"), (3, 20_000, "data")])
def test_a_full_disk_is_named_and_leaves_no_half_written_artifact(tmp_path, classes, items, place):
    """No file may grow beyond 256 kB, so the weights or the data do not fit, as on a full disk."""
    (tmp_path / "user.py").write_text(
        USER.replace("Linear(4, 3)", f"Linear(4, {classes})").replace("(8", f"({items}").replace("8,", f"{items},")
    )
    write_spec(tmp_path, workload={"name": "big", "model": MODEL, "evaluation": DATA})
    done = subprocess.run(
        [sys.executable, QUICK_CLI, "optimize", "tuning.yaml", "--home", "home"],
        cwd=tmp_path,
        env={**os.environ, "QUICK_RUNTIMES": "eager"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (256_000, 256_000)),
    )
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"infertune: {tmp_path / 'home' / place}: cannot be written")
    assert "Free some space" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list((tmp_path / "home" / place).iterdir()) == []


# --- output for programs ---------------------------------------------------------------------------------------


def test_json_output_is_one_document_even_when_user_code_prints_and_time_is_up(infertune, tmp_path):
    (tmp_path / "user.py").write_text("print('hello from user code')\n" + USER)
    write_spec(tmp_path, workload={"name": "loud", "model": MODEL, "evaluation": DATA})
    answer = infertune("optimize", "tuning.yaml", "--home", "home", "--output", "json", "--time-budget", "1")
    assert answer.err == ""
    result = json.loads(answer.out)
    assert result["workload"] == "loud"
    assert [t["recipe"] for t in result["trials"]] == ["eager fp32"]
    assert "85% of the time budget is used" in [d["reason"] for d in result["decisions"]]
    assert result["mlflow"]["run_id"]
    log = tmp_path / "home" / "sessions" / result["session"] / "logs" / "load.log"
    assert "hello from user code" in log.read_text()
