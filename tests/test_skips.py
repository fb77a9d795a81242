"""A skip is allowed where a person runs the tests, and a failure in CI, but for the reasons that are named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from skips_support import MAY_BE_SKIPPED

MISSING = "prometheus is not installed"
SKIPS = {
    "in_the_test": "def test_it(): pytest.skip({reason!r})",
    "by_a_mark": "@pytest.mark.skipif(True, reason={reason!r})\ndef test_it(): pass",
    "in_a_fixture": "@pytest.fixture\ndef made(): pytest.skip({reason!r})\ndef test_it(made): pass",
    "of_the_whole_file": "pytest.skip({reason!r}, allow_module_level=True)",
}


@pytest.fixture
def run(tmp_path):
    """Run files of tests under our hooks alone: `run(files, **environment) -> (exit code, what was said)`."""

    def runs(files, **environment):
        for name, text in files.items():
            (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{text}\n")
        hooks = {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": ""}
        options = ["-q", "-p", "skips_support", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, tmp_path],
            capture_output=True,
            text=True,
            env={**os.environ, **hooks, **environment},
            check=False,
        )
        return done.returncode, done.stdout

    return runs


def skipped_for(reason):
    return {name: text.format(reason=reason) for name, text in SKIPS.items()}


def test_where_a_person_runs_the_tests_what_is_missing_is_skipped(run):
    code, said = run(skipped_for(MISSING))
    assert code == pytest.ExitCode.OK
    assert f"{len(SKIPS)} skipped" in said


@pytest.mark.parametrize("ci", ["true", "True"])
def test_in_ci_every_way_to_skip_is_a_failure_that_says_why(run, ci):
    code, said = run(skipped_for(MISSING), CI=ci)
    assert code == pytest.ExitCode.TESTS_FAILED
    for name in SKIPS:
        assert re.search(
            rf"^(FAILED|ERROR) .*test_{name}\.py.* - skipped under CI=true: {MISSING}$", said, re.MULTILINE
        )
    assert " skipped in " not in said


def test_in_ci_a_package_that_cannot_be_imported_is_a_failure(run):
    code, said = run({"import": "pytest.importorskip('no_such_package')"}, CI="true")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "skipped under CI=true: could not import 'no_such_package'" in said


def test_in_ci_the_reasons_that_are_named_stay_skips_and_an_expected_failure_is_none(run):
    files = {f"{name}_{i}": text for i, r in enumerate(MAY_BE_SKIPPED) for name, text in skipped_for(r).items()}
    expected = "@pytest.mark.xfail\ndef test_it(): raise ValueError"
    code, said = run({**files, "expected": expected}, CI="true")
    assert code == pytest.ExitCode.OK
    assert f"{len(files)} skipped, 1 xfailed" in said
