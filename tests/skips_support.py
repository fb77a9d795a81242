"""Under `CI=true` a test that is skipped has failed, except for the reasons named here.

A skip is kind to a person without Prometheus, and a hole where everything is promised to run: there nobody reads
the reasons.
"""

import os

import pytest

MAY_BE_SKIPPED = {
    "needs kubectl": "the same trees are built by our own reading of kustomizations, and validated",
    "root may read everything": "what is forbidden to others is not forbidden to root",
    "root may write everywhere": "what is forbidden to others is not forbidden to root",
    "there is a GPU here": "the test is about machines without one",
    "this torch was built without CUDA": "the test is about builds for a GPU",
    "TensorRT is here": "the test is about machines without it",
    "no control group can be made here": "the kernel decides; the same tests run without a control group too",
    "no extended attributes here": "the file system decides",
    "on a ramp the moment of a sync decides how many replicas it asks for": "this recording cannot say",
}
"""Reasons about the machine or the recording, never about a program or a package that is missing: why each may be."""


def _refuse(report):
    """Make a failure of a skip that CI may not have."""
    if not report.skipped or hasattr(report, "wasxfail") or os.environ.get("CI", "").lower() != "true":
        return report
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if reason not in MAY_BE_SKIPPED:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _refuse((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _refuse((yield))
