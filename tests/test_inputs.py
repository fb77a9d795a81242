"""What a session is given beside its workload: its own copies of traffic and autoscaler; and bounds from a person."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from cluster_support import NAME, NAMESPACE, cluster, production, server  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from prometheus_support import serving
from session_support import HPA, TRAFFIC, write_spec

from agent.bounds import read_bounds
from agent.cluster_doctor import describe
from agent.inputs import gather, with_own_hpa
from tools.cluster.rights import IdentityRights, RightsReport
from tools.contracts import Bounds
from tools.errors import ClusterError, InfertuneError, SpecError, StorageError, TrafficError, WorkloadError
from tools.inputs import hpa_in_use, observe_task, read_hpa_task, trace_of
from tools.observer import Silent
from tools.spec import PrometheusSpec, TrafficSpec, load_spec
from tools.worker import Worker


def spec_with(folder, **sections):
    (folder / "traffic.csv").write_text(TRAFFIC)
    (folder / "hpa.yaml").write_text(HPA)
    return load_spec(write_spec(folder, **sections))


# --- copies ----------------------------------------------------------------------------------------------------


def test_traffic_that_changes_later_changes_nothing_for_the_session(tmp_path):
    spec = spec_with(tmp_path, traffic={"trace": "traffic.csv"})
    session = tmp_path / "session"
    own = gather(spec, session, None, Silent())
    (tmp_path / "traffic.csv").write_text("second,rps\n0,1\n60,1\n")
    assert Path(own.traffic.trace).parent == session / "inputs"
    assert max(trace_of(own.traffic, session).rps) == 159


def test_a_constant_rate_needs_no_copy(tmp_path):
    spec = spec_with(tmp_path, traffic={"rate_rps": 5})
    assert gather(spec, tmp_path / "session", None, Silent()) == spec
    assert set(trace_of(spec.traffic, tmp_path).rps) == {5.0}


def test_the_clusters_hpa_is_read_once_and_kept(server, cluster, tmp_path):
    version = read_hpa_task(cluster.model_dump(mode="json"), str(tmp_path / "inputs" / "hpa.json"))
    kept = server.hpa(NAMESPACE, NAME)
    assert version == kept["metadata"]["resourceVersion"]
    server.delete_hpa(NAMESPACE, NAME)
    spec = spec_with(tmp_path).model_copy(update={"cluster": cluster})
    assert hpa_in_use(spec, tmp_path)["spec"] == kept["spec"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_copy_that_is_gone_or_damaged_is_said(cluster, tmp_path, content):
    spec = spec_with(tmp_path).model_copy(update={"cluster": cluster})
    if content is not None:
        (tmp_path / "inputs").mkdir()
        (tmp_path / "inputs" / "hpa.json").write_bytes(content)
    with pytest.raises(StorageError, match="the copy of the cluster's HPA cannot be read"):
        hpa_in_use(spec, tmp_path)


def test_the_clusters_hpa_goes_before_a_file_and_a_file_before_nothing(server, cluster, tmp_path):
    with_file = spec_with(tmp_path, hpa={"file": "hpa.yaml"})
    assert hpa_in_use(with_file, tmp_path)["metadata"]["name"] == "classifier"
    assert hpa_in_use(spec_with(tmp_path), tmp_path) is None
    read_hpa_task(cluster.model_dump(mode="json"), str(tmp_path / "inputs" / "hpa.json"))
    both = with_file.model_copy(update={"cluster": cluster})
    assert hpa_in_use(both, tmp_path)["metadata"]["name"] == NAME


def test_a_bundled_hpa_is_copied_so_that_nothing_is_written_beside_the_installation(tmp_path):
    spec = spec_with(tmp_path, hpa={"file": "hpa.yaml"})
    own = with_own_hpa(spec, tmp_path / "session")
    assert own.hpa.file == str(tmp_path / "session" / "hpa.yaml")
    assert Path(own.hpa.file).read_text() == HPA
    assert with_own_hpa(spec_with(tmp_path), tmp_path).hpa is None


# --- what cannot be read ---------------------------------------------------------------------------------------


def test_an_hpa_that_is_not_there_keeps_no_copy(server, cluster, tmp_path):
    with pytest.raises(ClusterError, match=NAME):
        read_hpa_task({**cluster.model_dump(mode="json"), "hpa": f"no-{NAME}"}, str(tmp_path / "hpa.json"))
    assert not (tmp_path / "hpa.json").exists()


def test_a_prometheus_that_answers_nonsense_keeps_no_copy(tmp_path):
    with serving(lambda request: request.reply("<html>sign in</html>", content_type="text/html")) as (url, _):
        source = PrometheusSpec(url=url, preset="nginx")
        with pytest.raises(TrafficError):
            observe_task(source.model_dump(mode="json"), str(tmp_path / "traffic.json.gz"))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_copy_of_observed_traffic_is_said(tmp_path):
    source = TrafficSpec(prometheus=PrometheusSpec(url="http://127.0.0.1:9", preset="nginx"))
    with pytest.raises(InfertuneError, match=r"traffic\.json\.gz"):
        trace_of(source, tmp_path)


def test_what_a_worker_could_not_read_is_one_sentence(server, cluster, tmp_path):
    spec = spec_with(tmp_path).model_copy(update={"cluster": cluster.model_copy(update={"context": "nobody"})})
    token = server.access.add("nobody")
    with Worker(("tools.contracts",), tmp_path / "logs") as worker, pytest.raises(WorkloadError) as caught:
        gather(spec, tmp_path, worker, Silent())
    assert "forbidden" in str(caught.value).lower()
    assert "Traceback" not in str(caught.value)
    logs = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "kubeconfig")
    assert token.encode() not in logs


# --- bounds ----------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9_:]{0,20}", fullmatch=True)


@st.composite
def bounds(draw):
    low = draw(st.integers(1, 50))
    targets = sorted(draw(st.tuples(*[st.floats(0.001, 1e6)] * 2)))
    return Bounds(
        min_replicas=low,
        max_replicas=draw(st.integers(low, 500)),
        metrics=draw(st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple)),
        target=draw(st.none() | st.just(tuple(targets))),
        daily_cost_usd=draw(st.none() | st.floats(0.001, 1e6)),
    )


def written(given_bounds):
    """Bounds as a person writes them."""
    parts = [f"min={given_bounds.min_replicas}", f"max={given_bounds.max_replicas}"]
    if given_bounds.metrics is not None:
        parts.append(f"metrics={'+'.join(given_bounds.metrics)}")
    if given_bounds.target is not None:
        parts.append("target={!r}:{!r}".format(*given_bounds.target))
    if given_bounds.daily_cost_usd is not None:
        parts.append(f"daily-cost={given_bounds.daily_cost_usd!r}")
    return parts


@given(bounds(), st.randoms(use_true_random=False), st.sampled_from([",", " , ", ",,"]))
def test_bounds_are_read_as_they_are_written_in_any_order(wanted, random, comma):
    parts = written(wanted)
    random.shuffle(parts)
    assert read_bounds(comma.join(parts)) == wanted


@given(bounds())
def test_a_bound_that_occurs_twice_is_refused(wanted):
    for part in written(wanted):
        with pytest.raises(SpecError, match="occurs twice"):
            read_bounds(",".join([*written(wanted), part]))


@given(st.text(max_size=40))
def test_any_other_text_is_a_sentence_or_bounds_that_bind(text):
    with contextlib.suppress(SpecError):
        found = read_bounds(text)
        assert 1 <= found.min_replicas <= found.max_replicas


@given(bounds(), st.text(alphabet="0123456789.:-+eEnaif_x ", max_size=12))
def test_no_value_loosens_a_bound_beyond_all_bounds(wanted, value):
    for name in ("min", "max", "target", "daily-cost"):
        try:
            found = read_bounds(f"{'max=9,' if name != 'max' else ''}{name}={value}")
        except SpecError:
            continue
        assert found.max_replicas < 10**12
        assert found.target is None or 0 < found.target[0] <= found.target[1] < float("inf")
        assert found.daily_cost_usd is None or 0 < found.daily_cost_usd < float("inf")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "needs at least `max`"),
        ("min=2", "needs at least `max`"),
        ("maximum=4", "`maximum` is unknown"),
        ("max=4,max=4", "`max` occurs twice"),
        ("max=0", "max_replicas"),
        ("max=2.5", "max_replicas"),
        ("min=5,max=4", "min=5 is above max=4"),
        ("max=4,target=5", "target"),
        ("max=4,target=50:5", "target=50:5 is no range"),
        ("max=4,target=nan:nan", "target=nan:nan is no range"),
        ("max=4,target=0:5", "target=0:5 is no range"),
        ("max=4,target=5:inf", "target=5:inf is no range"),
        ("max=4,daily-cost=0", "daily_cost_usd"),
        ("max=4,daily-cost=nan", "daily"),
        ("max=4,daily-cost=inf", "daily"),
        ("max=4,metrics=", "`metrics` holds an empty name"),
        ("max=4,metrics=cpu+", "`metrics` holds an empty name"),
    ],
)
def test_bounds_that_bind_nothing_or_everything_are_refused(text, why):
    with pytest.raises(SpecError) as caught:
        read_bounds(text)
    assert why in str(caught.value)


# --- rights in words -------------------------------------------------------------------------------------------


def test_rights_are_said_identity_by_identity():
    reader = IdentityRights(identity="reader", context="r", server="https://k", lacks=("It may not get.",), exceeds=())
    writer = IdentityRights(
        identity="writer", context="w", server="https://k", lacks=(), exceeds=("It may delete.",), notes=("In part.",)
    )
    assert list(describe(RightsReport(namespace="a", hpa="b", reader=reader, writer=writer))) == [
        "HPA a/b",
        "reader: context r at https://k: not as it should be",
        "  It may not get.",
        "writer: context w at https://k: not as it should be",
        "  It may delete.",
        "  In part.",
        "The rights are not as they should be.",
    ]


def test_the_copy_of_the_hpa_is_json_that_any_tool_reads(server, cluster, tmp_path):
    read_hpa_task(cluster.model_dump(mode="json"), str(tmp_path / "hpa.json"))
    assert yaml.safe_load((tmp_path / "hpa.json").read_text()) == json.loads((tmp_path / "hpa.json").read_text())
