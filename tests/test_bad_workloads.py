"""Models and data that cannot work: each is refused with a sentence that names the place and the way out."""

import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.errors import WorkloadError
from tools.spec import DataSpec, WorkloadSpec
from tools.worker import Worker
from tools.workloads import code, metrics
from tools.workloads.batches import read_items
from tools.workloads.loading import dry_load, materialize

REPOSITORY = Path(__file__).resolve().parents[1]

GOOD = """
import numpy as np, torch

def build():
    return torch.nn.Linear(4, 3)

def data():
    for _ in range(3):
        yield np.ones((8, 4), np.float32), np.zeros(8, np.int64)
"""


@pytest.fixture(autouse=True)
def _fresh_imports(tmp_path, monkeypatch):
    """User modules are imported by name: what one test imports, the next must not see."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = set(sys.modules)
    yield
    for name in set(sys.modules) - loaded:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def _write(text, name="user.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return _write


def message(call, *arguments, **keywords):
    with pytest.raises(WorkloadError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


def load_message(tmp_path, file, **changes):
    fields = {
        "name": "bad",
        "model": {"factory": f"{file}:build"},
        "evaluation": {"factory": f"{file}:data"},
        **changes,
    }
    spec = WorkloadSpec.model_validate(fields).model_dump(mode="json")
    home = tmp_path / "home"
    dry = message(dry_load, spec, str(home))
    assert not home.exists()
    full = message(materialize, spec, str(home))
    assert dry == full
    assert not list(home.glob("*/.making-*"))
    return full


# --- code ----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_the_one_that_was_meant(write, tmp_path):
    write(GOOD, "model.py")
    text = message(code.resolve, f"{tmp_path}/modle.py:build")
    assert "modle.py: no such file" in text
    assert "`model.py`" in text


def test_a_missing_module_is_named(monkeypatch):
    text = message(code.resolve, "no_such_module_anywhere.part:build")
    assert "No module named 'no_such_module_anywhere'" in text


def test_a_module_of_the_working_directory_is_found(write, tmp_path, monkeypatch):
    write("def build(): return 7", "infertune_test_package/models.py")
    monkeypatch.chdir(tmp_path)
    assert code.call("infertune_test_package.models:build") == 7
    text = message(code.resolve, "infertune_test_package.models:built")
    assert "has no function `built`" in text
    assert "`build`" in text


def test_a_missing_function_gets_a_suggestion(write):
    assert "Did you mean `build`?" in message(code.resolve, f"{write(GOOD)}:biuld")


def test_a_name_that_is_no_function_is_refused(write):
    assert "is not a function (it is of type int)" in message(code.resolve, f"{write('build = 3')}:build")


@pytest.mark.parametrize("raised", ["ValueError('a\\nb')", "SystemExit(1)"])
def test_what_importing_raises_is_told_with_its_place(write, raised):
    file = write(f"import math\n\nraise {raised}\n")
    text = message(code.resolve, f"{file}:build")
    assert "importing it raised" in text
    assert f"{file}:3" in text
    assert "\n" not in text


def test_a_syntax_error_is_told_with_its_place(write):
    file = write("def build(:\n    pass\n")
    assert "SyntaxError: invalid syntax" in (text := message(code.resolve, f"{file}:build"))
    assert f"{file}:1" in text


def test_what_calling_raises_is_told_with_the_deepest_place_in_user_code(write):
    write("import numpy as np\n\ndef shape():\n    return np.zeros(4).reshape(3, 3)\n", "sibling.py")
    file = write("import sibling\n\ndef build():\n    return sibling.shape()\n")
    text = message(code.call, f"{file}:build")
    assert "calling `build` raised ValueError: cannot reshape" in text
    assert "sibling.py:4" in text


def test_a_factory_that_wants_arguments_is_named_with_its_line(write):
    file = write("\n\ndef build(classes):\n    return classes\n")
    text = message(code.call, f"{file}:build")
    assert "missing 1 required positional argument: 'classes'" in text
    assert f"{file}:3" in text


def test_a_missing_library_gets_advice(write):
    text = message(code.resolve, f"{write('import no_such_library.part')}:build")
    assert "Install what provides `no_such_library`" in text


def test_two_files_of_one_name_do_not_mix(write):
    one = write("def build(): return 1", "a/user.py")
    two = write("def build(): return 2", "b/user.py")
    assert [code.call(f"{f}:build") for f in (one, two, one)] == [1, 2, 1]


def test_a_file_may_have_any_name(write):
    assert code.call(f"{write('def build(): return 3', 'my-model v2.py')}:build") == 3
    assert code.call(f"{write('def build(): return 4', 'json.py')}:build") == 4


@pytest.mark.parametrize("name", ["tools", "agent", "nodes", "simulations"])
@pytest.mark.parametrize("layout", ["{}.py", "{}/__init__.py", "{}/helper.py"])
def test_a_helper_called_like_one_of_our_packages_is_refused_before_anything_runs(write, name, layout):
    write("def helper(): return 1", layout.format(name))
    file = write(f"print('ran')\nfrom {name} import helper\ndef build(): ...\n")
    text = message(code.resolve, f"{file}:build")
    assert f"`{name}` is infertune's own package" in text
    assert f"{file}:2" in text
    assert "Rename" in text


def test_a_clash_is_found_through_a_sibling_and_a_package(write):
    write("", "tools.py")
    write("from . import second", "pkg/__init__.py")
    second = write("def late():\n    import tools\n", "pkg/second.py")
    file = write("import pkg\ndef build(): ...\n")
    assert f"{second}:2: imports `tools`" in message(code.resolve, f"{file}:build")


def test_a_helper_of_ours_that_was_meant_to_be_the_users_is_explained_when_it_is_missing(write):
    file = write("from tools import augmentations\ndef build(): ...\n")
    text = message(code.resolve, f"{file}:build")
    assert "`tools` is infertune's own package" in text
    late = write("def build():\n    import tools\n    return tools.augment()\n", "late.py")
    assert "`tools` is infertune's own package" in message(code.call, f"{late}:build")


def test_a_package_of_the_users_may_have_a_module_called_like_ours(write):
    write("", "mine/__init__.py")
    write("def size(): return 5", "mine/tools.py")
    assert code.call(write("from mine.tools import size\ndef build(): return size()\n") + ":build") == 5


# --- models --------------------------------------------------------------------------------------------------


def test_a_factory_must_return_a_module(write, tmp_path):
    file = write(GOOD.replace("return torch.nn.Linear(4, 3)", "return 'model'"))
    assert "must return a torch.nn.Module, not str" in load_message(tmp_path, file)


def test_lazy_layers_are_refused(write, tmp_path):
    file = write(GOOD.replace("torch.nn.Linear(4, 3)", "torch.nn.LazyLinear(3)"))
    assert "do not know their shapes yet (`weight`)" in load_message(tmp_path, file)


def weights_message(tmp_path, write, name):
    file = write(GOOD)
    return load_message(tmp_path, file, model={"factory": f"{file}:build", "weights": str(tmp_path / name)})


def test_missing_weights_are_named(tmp_path, write):
    assert "w.pt: no such file" in weights_message(tmp_path, write, "w.pt")


def test_weights_that_do_not_fit_name_the_first_keys(tmp_path, write):
    torch.save(torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(4)]).state_dict(), tmp_path / "w.pt")
    text = weights_message(tmp_path, write, "w.pt")
    assert "missing `weight`, `bias`; unexpected `0.weight`, `0.bias`, `1.weight` and 5 more" in text


def test_weights_of_another_shape_name_both_shapes(tmp_path, write):
    torch.save(torch.nn.Linear(5, 3).state_dict(), tmp_path / "w.pt")
    assert "`weight` has shape (3, 5), the model wants (3, 4)" in weights_message(tmp_path, write, "w.pt")


def test_weights_of_a_data_parallel_wrapper_are_explained(tmp_path, write):
    state = {f"module.{k}": v for k, v in torch.nn.Linear(4, 3).state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    assert "model.module.state_dict()" in weights_message(tmp_path, write, "w.pt")


def test_a_pickle_that_needs_code_is_refused(tmp_path, write):
    torch.save(torch.nn.Linear(4, 3), tmp_path / "w.pt")
    text = weights_message(tmp_path, write, "w.pt")
    assert "loading it could run any code" in text
    assert "model.state_dict()" in text


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"x" * 300])
def test_damaged_weights_are_called_damaged(tmp_path, write, name, content):
    (tmp_path / name).write_bytes(content)
    assert "damaged" in weights_message(tmp_path, write, name)


def test_something_else_than_a_state_dict_is_refused(tmp_path, write):
    torch.save([torch.zeros(3)], tmp_path / "w.pt")
    assert "is not a state dict" in weights_message(tmp_path, write, "w.pt")


@pytest.mark.parametrize("source", ["onnx", "pt2", "torchscript"])
@pytest.mark.parametrize("content", [None, b"", b"hello", b"PK\x03\x04" + b"x" * 300])
def test_damaged_and_missing_programs_are_refused(tmp_path, write, source, content):
    file = write(GOOD)
    if content is not None:
        (tmp_path / "m").write_bytes(content)
    text = load_message(tmp_path, file, model={source: str(tmp_path / "m")})
    assert ("no such file" if content is None else "damaged") in text


def exported(path, module, size=2, **keywords):
    with warnings.catch_warnings():  # the exporter's own deprecations
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.ones(size, 4),),
            str(path),
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: "b"},),
            input_names=["x"],
            verbose=False,
            **keywords,
        )
    return path


def test_a_truncated_onnx_file_and_one_without_its_weights_are_called_damaged(tmp_path, write):
    import onnx

    file = write(GOOD)
    good = exported(tmp_path / "m.onnx", torch.nn.Linear(4, 3))
    data = good.read_bytes()
    (tmp_path / "half.onnx").write_bytes(data[: len(data) // 2])
    assert "damaged" in load_message(tmp_path, file, model={"onnx": str(tmp_path / "half.onnx")})
    onnx.save(onnx.load(good), str(tmp_path / "e.onnx"), save_as_external_data=True, location="w", size_threshold=0)
    (tmp_path / "w").unlink()
    text = load_message(tmp_path, file, model={"onnx": str(tmp_path / "e.onnx")})
    assert "damaged or incomplete" in text


def test_data_that_do_not_fit_an_onnx_graph_name_its_inputs(tmp_path, write):
    model = {"onnx": str(exported(tmp_path / "m.onnx", torch.nn.Linear(4, 3)))}
    two = write(
        GOOD.replace("yield np.ones((8, 4), np.float32)", "yield {'x': np.ones((8, 4)), 'y': np.ones(8)}"), "a.py"
    )
    assert "the model has 1 inputs: it takes x; the data have x, y" in load_message(tmp_path, two, model=model)
    other = write(GOOD.replace("yield np.ones((8, 4), np.float32)", "yield {'z': np.ones((8, 4))}"), "b.py")
    assert "the names of the inputs do not fit" in load_message(tmp_path, other, model=model)
    wide = write(GOOD.replace("(8, 4)", "(8, 5)"), "c.py")
    assert "`x` has items of (5,), the model takes (4,)" in load_message(tmp_path, wide, model=model)
    integers = write(GOOD.replace("(8, 4), np.float32", "(8, 4), np.uint8"), "d.py")
    assert "`x` is uint8, the model takes float32" in load_message(tmp_path, integers, model=model)


def test_a_model_that_cannot_run_the_data_says_so_with_the_batch(write, tmp_path):
    text = load_message(tmp_path, write(GOOD.replace("(8, 4)", "(8, 5)")))
    assert "running one batch raised RuntimeError: " in text
    assert "input_0 float32 (5,), 2 items" in text


MODEL = """
import numpy as np, torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        {init}

    def forward(self, x):
        y = self.layer(x)
        return {result}

def build():
    return Net()

def data():
    yield np.arange(64, dtype=np.float32).reshape(16, 4) / 64, np.zeros(16, np.int64)
"""


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("y / 0", "2 of 2 items have NaN or infinity in `output_0`"),
        ("{'ok': y, 'odd': torch.where(x[:, :1] == 0, torch.nan, y)}", "1 of 2 items have NaN or infinity in `odd`"),
        ("y.mean()", "the output `output_0` of 2 items has shape ()"),
        ("y.T", "first dimension must be the batch"),
        ("(y, 'text')", "the model returns a str (output_1)"),
        ("None", "the model returns no tensor"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(write, tmp_path, result, expected):
    assert expected in load_message(tmp_path, write(MODEL.format(init="", result=result)))


def test_a_model_whose_state_is_not_all_in_its_state_dict_is_refused(write, tmp_path):
    file = write(MODEL.format(init="self.offset = len(COUNT); COUNT.append(1)", result="y + 10 * self.offset"))
    Path(file).write_text("COUNT = []\n" + Path(file).read_text())
    fields = {"name": "bad", "model": {"factory": f"{file}:build"}, "evaluation": {"factory": f"{file}:data"}}
    spec = WorkloadSpec.model_validate(fields).model_dump(mode="json")
    assert "gives other outputs" in message(materialize, spec, str(tmp_path))


def test_random_outputs_are_noted_and_a_batch_that_is_refused_is_learnt(write, tmp_path):
    file = write(MODEL.format(init="", result="y + torch.rand_like(y)"))
    fields = {"name": "odd", "model": {"factory": f"{file}:build"}, "evaluation": {"factory": f"{file}:data"}}
    info = materialize(WorkloadSpec.model_validate(fields).model_dump(mode="json"), str(tmp_path))
    assert "on chance" in " ".join(info["notes"])
    single = write(MODEL.format(init="", result="y.reshape(1, 3)"), "single.py")
    fields |= {"model": {"factory": f"{single}:build"}}
    info = materialize(WorkloadSpec.model_validate(fields).model_dump(mode="json"), str(tmp_path))
    assert info["source"]["fixed_batch"] == 1


# --- data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return []", "there are no items"),
        ("yield np.zeros((0, 4)), None", "there are no items"),
        ("return None", "iterating over it raised TypeError"),
        ("yield np.ones((2, 4))", "yields a ndarray of shape (2, 4) where a pair is expected"),
        ("yield torch.ones(2, 4)", "yields a Tensor of shape (2, 4) where a pair is expected"),
        ("yield np.ones((2, 4)), None, 1", "yields a tuple where a pair is expected"),
        ("yield [1.0, 2.0], None", "`input_0` is a float, not an array or tensor"),
        ("yield np.float32(1), None", "`input_0` has no batch dimension"),
        ("yield torch.tensor(1.0), np.zeros(1)", "`input_0` has no batch dimension"),
        ("yield np.array([[1], [1, 2]], object), None", "dtype object"),
        ("yield np.array(['a', 'b']), None", "dtype <U1"),
        ("yield np.ones((2, 4)), [[1], [1, 2]]", "targets is not an array"),
        ("yield np.ones((2, 4)), np.zeros(3)", "differ in length: input_0 2, targets 3"),
        ("yield (np.ones((2, 4)), np.ones(3)), None", "differ in length: input_0 2, input_1 3"),
        ("yield {'targets': np.ones(2)}, None", "an input cannot be called 'targets'"),
        ("yield {}, None", "a batch has no inputs"),
        ("yield np.array([[0.0], [np.nan]]), None", "NaN or infinity in 1 of 2 items (the first is item 1)"),
        ("yield torch.full((3, 2), torch.inf), None", "NaN or infinity in 3 of 3 items"),
        ("yield np.ones((2, 4)), np.array([np.nan, 1])", "targets has NaN"),
        ("yield np.ones((2, 4)), None; yield np.ones((2, 5)), None", "batch 1: `input_0` has items of float64 (5,)"),
        ("yield np.ones((2, 4)), None; yield np.ones((2, 4)), np.ones(2)", "some batches have targets"),
        ("yield {'a': np.ones(2)}, None; yield {'b': np.ones(2)}, None", "has the inputs ['b'], earlier batches ['a']"),
        ("yield np.ones((2, 4)), None; raise OSError('disk')", "producing a batch raised OSError: disk"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_bad_data_are_refused(write, body, expected):
    file = write(f"import numpy as np, torch\ndef data():\n    {body}\n")
    text = message(read_items, DataSpec(factory=f"{file}:data"))
    assert expected in text
    assert file in text


def test_a_preprocessing_that_raises_is_named_with_its_line(write):
    file = write(GOOD + "\ndef pre(raw):\n    return raw.missing\n")
    text = message(read_items, DataSpec(factory=f"{file}:data"), preprocess=f"{file}:pre")
    assert "calling `pre` raised AttributeError" in text
    assert f"{file}:12" in text


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"inputs": np.array([{}, {}], object)}, "holds something else than numbers"),
        ({"targets": np.zeros(3)}, "has no inputs"),
        ({"inputs": np.zeros((4, 2)), "targets": np.zeros(3)}, "differ in length: inputs (4, 2), targets (3,)"),
        ({"inputs": np.float32(3)}, "has no batch dimension"),
        ({"inputs": np.zeros((0, 2))}, "there are no items"),
        ({"inputs": np.array([1.0, np.inf])}, "NaN or infinity in 1 of 2"),
        ({"inputs": np.zeros((4, 2)), "targets": np.int64(3)}, "`targets` has no batch dimension"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, arrays, expected):
    np.savez(tmp_path / "d.npz", **arrays)
    assert expected in message(read_items, DataSpec(npz=str(tmp_path / "d.npz")))


def test_a_missing_or_damaged_npz_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    assert "no such file" in message(read_items, DataSpec(npz=str(path)))
    for content in (b"", b"hello", b"PK\x03\x04" + b"x" * 100):
        path.write_bytes(content)
        assert "d.npz" in message(read_items, DataSpec(npz=str(path)))
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "is not an .npz" in message(read_items, DataSpec(npz=str(path)))


def test_too_few_items_to_calibrate_with_are_refused(write, tmp_path):
    file = write(
        GOOD.replace("range(3)", "range(1)").replace("8", "3").replace("np.float32", "'f4'").replace("int64", "int32")
    )
    fields = {"name": "few", "model": {"factory": f"{file}:build"}, "evaluation": {"factory": f"{file}:data"}}
    spec = WorkloadSpec.model_validate(fields).model_dump(mode="json")
    assert "3 items are too few" in message(materialize, spec, str(tmp_path))


def test_calibration_items_must_be_like_the_evaluation_items(write, tmp_path):
    file = write(GOOD + "\ndef other():\n    yield np.ones((8, 5), np.float32), None\n")
    text = load_message(tmp_path, file, calibration={"factory": f"{file}:other"})
    assert "input_0 float32 (5,), and input_0 float32 (4,)" in text


# --- metrics -------------------------------------------------------------------------------------------------

LOGITS = (np.eye(3, dtype=np.float32),)


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "expected"),
    [
        ("top1", LOGITS, None, "top1 needs targets"),
        ("top1", (np.ones((3, 2, 2)),), np.zeros(3, int), "needs outputs of shape (n, classes)"),
        ("top1", (np.ones((3, 1)),), np.zeros(3, int), "needs outputs of shape (n, classes)"),
        ("top1", LOGITS, np.zeros((3, 3), int), "needs integer labels of shape (n,)"),
        ("top1", LOGITS, np.zeros(3), "needs integer labels of shape (n,)"),
        ("top1", LOGITS, np.array([0, 3, 1]), "1 of 3 targets are no class of the model (item 1 has 3"),
        ("top1", LOGITS, np.array([0, 1, -1]), "item 2 has -1"),
        ("top1", LOGITS, np.zeros(2, int), "3 outputs cannot be scored with 2 targets"),
        ("top5", LOGITS, np.zeros(3, int), "top5 needs at least 5 classes"),
        ("mse", LOGITS, np.zeros((3, 4)), "outputs of 3 numbers an item with targets of 4"),
        ("cosine", LOGITS, None, "needs targets, or a baseline's outputs"),
        ("top1", (np.full((3, 3), np.nan),), np.zeros(3, int), "3 of 3 items have NaN or infinity in `output_0`"),
        ("mse", (*LOGITS, np.array([1, np.inf, 1])), LOGITS[0], "1 of 3 items have NaN or infinity in `output_1`"),
    ],
)
def test_what_a_metric_cannot_score_is_refused(metric, outputs, targets, expected):
    assert expected in message(metrics.score, metric, outputs, targets)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return outputs", "returned of shape (3, 3) for 3 items"),
        ("return [1, 2]", "returned of shape (2,) for 3 items"),
        ("return 'good'", "reading what it returned raised ValueError"),
        ("return [1, 2, float('nan')]", "returned 1 scores that are not finite"),
        ("return outputs[targets]", "calling `own` raised"),
    ],
)
def test_a_metric_of_the_users_own_that_misbehaves_is_named(write, body, expected):
    file = write(f"def own(outputs, targets):\n    {body}\n")
    assert expected in message(
        metrics.score, f"{file}:own", LOGITS, None if "targets]" not in body else np.array(["a"] * 3)
    )


def test_a_wrong_label_among_many_is_found_before_anything_is_measured(write, tmp_path):
    file = write(
        """
        import numpy as np, torch
        def build():
            return torch.nn.Linear(4, 3)
        def data():
            yield np.ones((100, 4), np.float32), np.arange(100) // 33
        """
    )
    fields = {"name": "bad", "model": {"factory": f"{file}:build"}, "evaluation": {"factory": f"{file}:data"}}
    spec = WorkloadSpec.model_validate(fields).model_dump(mode="json")
    assert "targets are no class of the model" in message(materialize, spec, str(tmp_path))


def test_a_spec_that_turns_a_builtin_metric_around_is_refused():
    assert "contradicts" in message(metrics.higher_is_better, "mse", declared=True)


# --- in a worker ---------------------------------------------------------------------------------------------


def test_a_bad_workload_is_an_outcome_of_the_worker_with_the_whole_sentence(write, tmp_path):
    file = write("from tools import nothing_of_ours\n")
    fields = {"name": "bad", "model": {"factory": f"{file}:build"}, "evaluation": {"factory": f"{file}:data"}}
    spec = WorkloadSpec.model_validate(fields).model_dump(mode="json")
    with Worker([], tmp_path / "logs") as worker:
        outcome = worker.run(
            "tools.workloads.loading:dry_load", {"spec": spec, "home": "x"}, label="check", limit_s=100
        )
    assert outcome.outcome == "failed"
    assert outcome.stage == "loading the model"
    assert "`tools` is infertune's own package" in outcome.reason
