"""A process that applies and verifies a plan is killed at every step; the next one finishes, or takes it back."""

import multiprocessing
import signal

import pytest
from change_child import run
from change_support import (  # noqa: F401
    approved,
    cluster,
    context,
    kinds,
    production,
    server,
    spec_of,
    store,
    stored_patches,
    time,
    within,
)
from cluster_support import CPU_70, NAME, NAMESPACE

from tools.cluster.comparison import same
from tools.cluster.resume import resume_change

VERIFY_S = 30.0
GOOD_MS, BAD_MS = 50.0, 500.0
# One server process imports everything; each child is a fork of it. It has no threads, other than this process.
FORKS = multiprocessing.get_context("forkserver")
PRELOAD = ["kubernetes.client", "kubernetes.config", "pytest", "tools.cluster.connection", "tools.cluster.resume"]
FORKS.set_forkserver_preload(PRELOAD)


@pytest.fixture
def calm(context):  # noqa: F811
    """The hands by which one change may follow another at once."""
    return within(context, cooldown_s=0.0)


@pytest.fixture
def child(calm, time, tmp_path):  # noqa: F811
    """Run a process on a plan up to a step; return the state that it ended in, None if it was killed."""

    def until(plan, last, *, p99_ms):
        result = tmp_path / "result"
        result.unlink(missing_ok=True)
        home = str(calm.store.home)
        arguments = (home, calm.cluster.model_dump_json(), plan.digest, p99_ms, time.now.isoformat(), last, str(result))
        process = FORKS.Process(target=run, args=arguments)
        process.start()
        process.join()
        code = process.exitcode
        process.close()
        if code == 0:
            return result.read_text()
        assert code == -signal.SIGKILL
        return None

    return until


def settled(server, store, plan):  # noqa: F811
    """Check that the HPA is before or after, that the store says which, and that nothing was stored twice."""
    state = store.state(plan.digest)
    spec, patches = spec_of(server), stored_patches(server)
    assert store.flaw() is None
    assert state in {"verified", "rolled_back", "failed", "expired"}
    assert same(spec, plan.after if state == "verified" else plan.before)
    forward = [p for p in patches if p.body["spec"]["maxReplicas"] == plan.after["maxReplicas"]]
    assert len(forward) == (1 if state in {"verified", "rolled_back"} else 0)
    assert len(patches) - len(forward) == (1 if state == "rolled_back" else 0)
    happened = kinds(store, plan)
    assert len(happened) == len(set(happened))
    return state


@pytest.fixture
def every_step(child, calm, server, time):  # noqa: F811
    """Kill a process at step 1, 2, 3, ... of a fresh plan, until one lives to its end; resume after each."""

    def run_all(resume, *, p99_ms, stride=1):
        ends = []
        for step in range(1, 200, stride):
            plan = approved(calm, verify_s=VERIFY_S, session=f"step-{step}")
            ended = child(plan, step, p99_ms=p99_ms)
            if ended is None:
                resume(plan, step)
            ends.append(settled(server, calm.store, plan))
            if ended is not None:
                return ends
            put_back(server)
            time.sleep(7 * 86_400)
        raise AssertionError("it never ended")

    return run_all


def put_back(server):  # noqa: F811
    """Begin anew: the HPA as it was, and an empty log."""
    spec = {"maxReplicas": 10, "metrics": [CPU_70], "behavior": None}
    server.edit_hpa(NAMESPACE, NAME, {"spec": spec}, manager="kubectl-edit")
    server.log.clear()


def test_killed_at_any_step_of_a_good_change_it_is_verified_in_the_end(every_step, calm, time):  # noqa: F811
    def resume(plan, step):
        time.sleep(20)
        assert resume_change(plan.digest, calm, watch_slo=lambda: GOOD_MS).state == "verified"

    ends = every_step(resume, p99_ms=GOOD_MS)
    assert set(ends) == {"verified"}
    assert len(ends) > 25


def test_killed_at_any_step_of_a_bad_change_it_is_taken_back_in_the_end(every_step, calm, time):  # noqa: F811
    def resume(plan, step):
        time.sleep(20)
        assert resume_change(plan.digest, calm, watch_slo=lambda: BAD_MS).state == "rolled_back"

    ends = every_step(resume, p99_ms=BAD_MS)
    assert set(ends) == {"rolled_back"}
    assert len(ends) > 35


def test_killed_and_found_long_after_the_window_one_check_decides(every_step, calm, server, time):  # noqa: F811
    def resume(plan, step):
        state = calm.store.state(plan.digest)
        time.sleep(86_400)
        slept, reads = len(time.slept), len(server.log)
        resume_change(plan.digest, calm, watch_slo=lambda: GOOD_MS)
        if state == "verifying":
            assert len(time.slept) == slept
            assert len(server.log) == reads + 1

    ends = every_step(resume, p99_ms=GOOD_MS, stride=2)
    # What was not sent when the approval expired is not sent any more.
    assert set(ends) == {"verified", "failed", "expired"}


def test_killed_twice_it_still_comes_to_an_end(child, every_step, calm, time):  # noqa: F811
    def resume(plan, step):
        time.sleep(20)
        if child(plan, step, p99_ms=BAD_MS) is None:
            resume_change(plan.digest, calm, watch_slo=lambda: BAD_MS)

    assert set(every_step(resume, p99_ms=BAD_MS, stride=3)) == {"rolled_back"}
