"""`infertune manifests`: what is made, that it is valid, that it fits together, and that its alerts fire."""

import contextlib
import itertools
import os
import re
import shutil
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from manifests_support import (
    BUILT,
    asked,
    assert_valid,
    build,
    identity,
    kubectl_kustomize,
    one,
    service,
)
from recorded_support import write_session
from sample_result import configuration, empty_result, sample_result
from typer.testing import CliRunner

import agent.cli_schedule
from agent.cli_manifests import app
from agent.scheduling.processes import GRACE_S
from tools.contracts import Recommendation, ScalingOption, Verdict, digest_of
from tools.errors import InfertuneError, SpecError, StorageError
from tools.manifests import figures
from tools.manifests.check import check_tree
from tools.manifests.gather import Choices, from_spec
from tools.manifests.labels import reader_name, writer_name
from tools.manifests.names import check_labels, check_name, check_namespace, parse_image
from tools.manifests.service import Service, Sourced
from tools.manifests.tree import tree
from tools.manifests.writing import compare, write_tree

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"


@pytest.fixture(scope="module")
def made():
    """The service of the sample session under the bundled HPA, and its tree."""
    found = service(hpa=True)
    return found, tree(found)


@pytest.fixture(scope="module")
def production(made):
    return build(made[1], "overlays/production")


def on_disk(files, folder):
    write_tree(files, folder)
    return folder


# --- valid ---

TREES = {
    "a session, a new HPA": service,
    "a session, an HPA in use": lambda: service(hpa=True),
    "a session without traffic": lambda: service(result=sample_result(scaling=None)),
    "no SLO": lambda: service(objective={}),
    "a spec alone": lambda: from_spec(asked(), Choices()),
    "a spec alone, an HPA in use": lambda: from_spec(asked(hpa=True), Choices(job_image=f"i@sha256:{'a' * 64}")),
    "a GPU": lambda: service(result=on_gpu()),
}


def on_gpu():
    best = sample_result().best
    return sample_result(best=best.model_copy(update={"runtime": "onnxruntime-cuda"}))


@pytest.mark.parametrize("name", TREES)
def test_every_object_of_every_overlay_is_valid_by_its_published_schema(name):
    files = tree(TREES[name]())
    for folder in (*BUILT, "prometheus-adapter"):
        objects = build(files, folder)
        assert objects
        assert len({identity(o) for o in objects}) == len(objects)
        for manifest in objects:
            assert_valid(manifest)


@pytest.mark.parametrize("folder", [*BUILT, "prometheus-adapter"])
def test_kustomize_builds_the_same(made, tmp_path, folder):
    on_disk(made[1], tmp_path / "tree")
    ours, theirs = (
        {identity(o): o for o in objects}
        for objects in (build(made[1], folder), kubectl_kustomize(tmp_path / "tree" / folder))
    )
    assert ours == theirs


def test_a_schema_that_accepts_everything_would_prove_nothing(production):
    rule = one(production, "PrometheusRule")
    rule = {**rule, "spec": {"groups": [{"name": "g", "rulez": []}]}}
    with pytest.raises(Exception, match="rulez"):
        assert_valid(rule)


def test_check_judges_a_tree_and_names_what_is_wrong(made, tmp_path):
    folder = on_disk(made[1], tmp_path / "tree")
    report = check_tree(folder)
    assert (report.problems, report.unknown) == ((), ("PrometheusRule", "ScaledObject", "ServiceMonitor"))
    assert report.valid > 10
    (folder / "base" / "pdb.yaml").unlink()
    path = folder / "base" / "deployment.yaml"
    path.write_text(path.read_text().replace("failureThreshold: 6", "failureThreshhold: 6"))
    (folder / "bad.yaml").write_text("a: [1")
    problems = " ".join(check_tree(folder).problems)
    assert "base/pdb.yaml: does not exist" in problems
    assert "base/deployment.yaml: Deployment spec.template.spec.containers.0.livenessProbe" in problems
    assert "bad.yaml: cannot be read" in problems
    with pytest.raises(SpecError, match="has no manifests"):
        check_tree(tmp_path / "nothing")


# --- what is in it ---


def test_requests_and_limits_come_from_what_was_measured(made, production):
    found, files = made
    best = sample_result().best
    container = one(production, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"] == {"cpu": "2", "memory": f"{found.memory_mib.value}Mi"}
    assert found.memory_mib.value * 2**20 >= 1.25 * best.memory_mb * 1e6 + figures.SERVER_MIB * 2**20
    assert container["image"] == "reg.example/m:1"
    header = files["base/deployment.yaml"].partition("apiVersion")[0]
    assert f"a peak of {best.memory_mb:.0f} MB at batch 16" in header
    assert "session 20261122-041502-resnet50" in header


@given(memory_mb=st.floats(0.1, 1e6), load_ms=st.none() | st.floats(0, 1e7))
def test_there_is_always_room_over_the_measured_peak_and_time_over_the_measured_start(memory_mb, load_ms):
    best = sample_result().best.model_copy(update={"memory_mb": memory_mb})
    found = figures.measured_memory(best, "s")
    spare = found.value * 2**20 - 1.25 * memory_mb * 1e6
    assert -1 <= spare - 128 * 2**20 <= figures.MEMORY_STEP_MIB * 2**20 + 1
    start = figures.startup(load_ms, "s")
    assert start.value >= max(60, 4 * (10 + (load_ms or 0) / 1000))
    assert ("default" in start.source) == (load_ms is None)


def test_the_startup_probe_waits_for_as_long_as_loading_may_take():
    files = tree(service(load_ms=60_000.0))
    container = one(build(files, "base"), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 4 * (10 + 60)
    assert "loading the model took 60.00 s" in files["base/deployment.yaml"]


def test_cores_come_from_the_spec_the_recipe_or_the_machine():
    assert service(scaling={"cores": 1.5}).cpu_milli == Sourced(value=1500, source="the spec's scaling.cores")
    hardware = {"price_per_hour_usd": 0.1, "threads": 4}
    assert service(hardware=hardware).cpu_milli.value == 4000
    best = sample_result().best
    alone = best.model_copy(update={"definition": best.definition.model_copy(update={"settings": {"threads": 1}})})
    assert service(result=sample_result(best=alone), hardware=hardware).cpu_milli.value == 1000
    assert "all 2 cores" in service().cpu_milli.source
    assert from_spec(asked(), Choices()).cpu_milli.source == figures.UNMEASURED


def test_a_model_on_a_gpu_asks_for_one():
    pods = build(tree(service(result=on_gpu())), "overlays/production")
    for kind in ("Deployment", "CronJob"):
        assert "'nvidia.com/gpu': '1'" in str(one(pods, kind))


def test_the_autoscaler_is_the_recommended_one_under_the_names_of_the_one_in_use(made, production):
    hpa = one(production, "HorizontalPodAutoscaler")
    assert hpa["metadata"]["name"] == "image-classifier"
    assert hpa["metadata"]["namespace"] == "inference"
    assert hpa["metadata"]["labels"]["team"] == "vision"
    assert "infertune.dev/managed" not in hpa["metadata"]["labels"], "a person opts in"
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 8)
    assert hpa["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "12"
    assert "replicas" not in one(production, "Deployment")["spec"], "that field is the autoscaler's"
    staging = one(build(made[1], "overlays/staging"), "HorizontalPodAutoscaler")
    assert (staging["spec"]["minReplicas"], staging["spec"]["maxReplicas"]) == (1, 2)
    assert staging["metadata"]["namespace"] == "inference-staging"


def test_what_the_search_chose_is_what_is_deployed():
    latency = {
        "type": "Object",
        "object": {
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "elsewhere"},
            "metric": {"name": "request_latency_p99_ms"},
            "target": {"type": "Value", "value": "20"},
        },
    }
    spec = {"minReplicas": 3, "maxReplicas": 7, "metrics": [latency]}
    chosen = ScalingOption(name="p99 20 ms, 3 to 7", spec=spec, outcomes=())
    found = Recommendation.model_construct(chosen=chosen)
    result = sample_result()
    result = sample_result(scaling=result.scaling.model_copy(update={"recommendation": found}))
    files = tree(service(result=result))
    hpa = one(build(files, "overlays/production"), "HorizontalPodAutoscaler")
    assert_valid(hpa)
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (3, 7)
    assert hpa["spec"]["metrics"][0]["object"]["describedObject"]["name"] == "resnet50", "the Service that is made here"
    assert "p99 20 ms, 3 to 7" in files["base/hpa.yaml"].replace("\n#  ", "")


def test_the_clusters_names_and_bounds_win():
    bounds = {"min_replicas": 3, "max_replicas": 5}
    found = service(hpa=True, cluster={"context": "c", "namespace": "prod", "hpa": "web.hpa", "bounds": bounds})
    assert (found.name, found.hpa_name, found.namespace) == ("image-classifier", "web.hpa", "prod")
    assert (found.autoscaler.value["minReplicas"], found.autoscaler.value["maxReplicas"]) == (3, 5)
    assert "within the spec's cluster.bounds" in found.autoscaler.source


def test_a_spec_alone_says_that_nothing_was_measured():
    found = from_spec(asked(hpa=True), Choices())
    assert found.autoscaler.value["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    assert "nothing was measured" in tree(found)["base/hpa.yaml"]
    assert from_spec(asked(objective={"max_memory_mb": 500}), Choices()).memory_mib == Sourced(
        value=480, source="the spec's objective.max_memory_mb"
    )


def test_a_session_without_a_choice_gives_no_manifests():
    with pytest.raises(SpecError, match="INTERRUPTED without a configuration"):
        service(result=empty_result())


def test_a_slower_configuration_is_described_as_itself():
    tried = sample_result().trials
    found = service(result=sample_result(best=configuration(tried[0], 1)))
    assert found.max_batch.value == 1
    assert found.memory_mib.value > service().memory_mib.value


def test_pods_run_without_any_privilege(production):
    for pod in (
        one(production, "Deployment")["spec"]["template"]["spec"],
        one(production, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    ):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert one(production, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_nobody_may_do_more_than_is_said(made, production):
    rules = {o["metadata"]["name"]: o["rules"] for o in production if o["kind"] == "Role"}
    hpas = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"]}
    assert rules == {
        reader_name(made[0]): [{**hpas, "verbs": ["get", "list", "watch"]}],
        f"{reader_name(made[0])}-pods": [
            {
                "apiGroups": ["apps"],
                "resources": ["deployments"],
                "resourceNames": ["image-classifier"],
                "verbs": ["get"],
            },
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        ],
        writer_name(made[0]): [{**hpas, "resourceNames": ["image-classifier"], "verbs": ["get", "patch"]}],
    }
    assert not [o for o in production if o["kind"].startswith("Cluster")]
    users = [o for o in production if o["kind"] != "RoleBinding" and writer_name(made[0]) in str(o)]
    assert {o["kind"] for o in users} == {"ServiceAccount", "Role"}, "no pod runs as the writer"
    assert all(o["automountServiceAccountToken"] is False for o in production if o["kind"] == "ServiceAccount")


def test_the_objects_fit_together(made, production):
    pod = one(production, "Deployment")["spec"]["template"]
    service_object = one(production, "Service")
    for selector in (
        one(production, "Deployment")["spec"]["selector"]["matchLabels"],
        service_object["spec"]["selector"],
        one(production, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= pod["metadata"]["labels"].items()
    job = one(production, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    assert not service_object["spec"]["selector"].items() <= job["metadata"]["labels"].items()
    monitor = one(production, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service_object["metadata"]["labels"].items()
    (port,) = service_object["spec"]["ports"]
    (container,) = pod["spec"]["containers"]
    probes = [container[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "readiness", "liveness")]
    assert {port["targetPort"], monitor["endpoints"][0]["port"], *probes} == {container["ports"][0]["name"]}
    assert port["name"] == monitor["endpoints"][0]["port"]
    target = one(production, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == one(production, "Deployment")["metadata"]["name"]
    accounts = {o["metadata"]["name"] for o in production if o["kind"] == "ServiceAccount"}
    roles = {o["metadata"]["name"] for o in production if o["kind"] == "Role"}
    for binding in (o for o in production if o["kind"] == "RoleBinding"):
        assert binding["roleRef"]["name"] in roles
        assert [(s["name"] in accounts, s["namespace"]) for s in binding["subjects"]] == [(True, "inference")]
    assert {pod["spec"]["serviceAccountName"], job["spec"]["serviceAccountName"]} <= accounts
    (claim,) = [v["persistentVolumeClaim"]["claimName"] for v in job["spec"]["volumes"] if "emptyDir" not in v]
    assert claim == one(production, "PersistentVolumeClaim")["metadata"]["name"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > container["lifecycle"]["preStop"]["sleep"]["seconds"]


def test_the_job_recommends_as_the_reader_and_one_at_a_time(made, production):
    job = one(production, "CronJob")["spec"]
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert pod["serviceAccountName"] == reader_name(made[0])
    assert pod["automountServiceAccountToken"] is True
    assert pod["terminationGracePeriodSeconds"] > GRACE_S, "a session that is ended keeps the best so far"
    budget = asked().budget
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] > budget.time_s + budget.trial_s
    assert not [o for o in build(made[1], "overlays/staging") if o["kind"] == "CronJob"]


def test_the_job_looks_for_a_reason_with_its_home_on_the_volume_and_a_webhook_if_a_secret_names_one(production):
    (job,) = one(production, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    settings = {variable["name"]: variable for variable in job["env"]}
    assert settings["INFERTUNE_HOME"]["value"] in [mount["mountPath"] for mount in job["volumeMounts"]]
    group, name, *rest = job["args"]
    command = typer.main.get_command(agent.cli_schedule.app).commands[name]
    assert group == "schedule"
    assert command.make_context(name, rest).params["target"] == "tuning.yaml"
    (asked_for,) = [parameter.envvar for parameter in command.params if parameter.name == "webhook"]
    for name in (asked_for, "INFERTUNE_WEBHOOK_SECRET"):
        reference = settings[name]["valueFrom"]["secretKeyRef"]
        assert reference["name"] == "image-classifier-infertune-webhook"
        assert reference["optional"], "without the Secret nobody is told, and the job runs"


def test_the_job_may_reach_prometheus_where_the_spec_has_it():
    found = service(traffic={"prometheus": {"url": "https://prom.example:9443", "preset": "vllm"}})
    policy = one(build(tree(found), "overlays/production"), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert [p["port"] for p in policy["egress"][1]["ports"]] == [443, 6443, 9443]


def test_keda_stands_in_for_the_autoscaler_with_the_same_bounds_targets_and_behavior(made):
    objects = build(made[1], "overlays/production-keda")
    assert not [o for o in objects if o["kind"] == "HorizontalPodAutoscaler"]
    scaled = one(objects, "ScaledObject")["spec"]
    hpa = one(build(made[1], "overlays/production"), "HorizontalPodAutoscaler")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["name"] == "image-classifier"
    queue, cpu = scaled["triggers"]
    assert queue["metadata"]["threshold"] == "12"
    assert queue["metadata"]["ignoreNullValues"] == "false", "nothing is not zero"
    assert cpu["metadata"] == {"value": "80"}
    staging = one(build(made[1], "overlays/staging-keda"), "ScaledObject")["spec"]
    assert (staging["minReplicaCount"], staging["maxReplicaCount"]) == (1, 2)
    assert 'namespace="inference-staging"' in staging["triggers"][0]["metadata"]["query"]


def test_keda_gets_numbers_and_all_metrics_that_a_search_may_choose():
    rules = {
        "tolerance": "0.05",
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }
    latency = {
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "resnet50"},
        "metric": {"name": "request_latency_p99_ms"},
        "target": {"type": "Value", "value": "12500m"},
    }
    spec = {
        "minReplicas": 2,
        "maxReplicas": 4,
        "metrics": [
            {"type": "Object", "object": latency},
            pods_metric("request_rate", "1500m"),
            pods_metric("their_own", "3"),
        ],
        "behavior": {"scaleUp": rules},
    }
    found = service().model_copy(update={"autoscaler": Sourced(value=spec, source="made")})
    scaled = one(build(tree(found), "overlays/production-keda"), "ScaledObject")
    assert_valid(scaled)
    triggers = scaled["spec"]["triggers"]
    assert [(t["metricType"], t["metadata"]["threshold"]) for t in triggers] == [
        ("Value", "12.5"),
        ("AverageValue", "1.5"),
    ]
    alone = found.model_copy(update={"autoscaler": Sourced(value={**spec, "metrics": []}, source="made")})
    assert not [path for path in tree(alone) if "keda" in path], "without a trigger there is no ScaledObject"


def pods_metric(name, value):
    return {
        "type": "Pods",
        "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": value}},
    }


# --- names and texts are data ---


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "3d", "a_b", "a.b", "a" * 43, "a\n", 'a"', "ä", "a\nkind: Evil"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name):
    with pytest.raises(SpecError, match="cannot name a service"):
        check_name(name, "here")
    with pytest.raises(SpecError, match=r"^--name: "):
        service(choices=Choices(name=name))


@pytest.mark.parametrize("namespace", ["", "-a", "a.b", "A", "a" * 56, "a\n"])
def test_a_namespace_too(namespace):
    with pytest.raises(SpecError, match="cannot name a namespace"):
        check_namespace(namespace, "here")


@pytest.mark.parametrize(
    "labels", [[], {"a b": "c"}, {"a": 1}, {"a": "b c"}, {"/a": "b"}, {"x/": "b"}, {"a": "b" * 64}]
)
def test_labels_too(labels):
    with pytest.raises(SpecError, match="label"):
        check_labels(labels, "here")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("r:1", ("r", "1", None)),
        ("localhost:5000/a/b:v1.2", ("localhost:5000/a/b", "v1.2", None)),
        (f"ghcr.io/o/r@sha256:{'0' * 64}", ("ghcr.io/o/r", None, f"sha256:{'0' * 64}")),
        (f"r:1@sha256:{'a' * 64}", ("r", "1", f"sha256:{'a' * 64}")),
    ],
)
def test_an_image_is_taken_apart(reference, parts):
    image = parse_image(reference, "here")
    assert (image.repository, image.tag, image.digest) == parts


@pytest.mark.parametrize(
    "reference", ["", ":1", "a", "localhost:5000/a", "a:", "A:1", "a b:1", "a:1\n", "a@sha256:0", "a:1@"]
)
def test_an_image_that_is_none_or_could_be_anything_is_refused(reference):
    with pytest.raises(SpecError, match=r"is no image|neither a tag nor a digest"):
        parse_image(reference, "--image")


@given(st.text(max_size=60))
def test_whatever_a_check_lets_through_is_its_own_yaml(text):
    for check in (check_name, check_namespace, parse_image):
        with contextlib.suppress(SpecError):
            check(text, "here")
            assert re.fullmatch(r"[A-Za-z0-9:/@._-]+", text)


HOSTILE = "x\n---\nkind: ClusterRoleBinding # \u202e \x1b[31m {{ evil }}"


def test_a_text_from_a_session_cannot_add_an_object_or_a_line(made):
    best = sample_result().best.model_copy(update={"recipe": HOSTILE})
    result = sample_result(session=HOSTILE, best=best)
    files = tree(service(result=result, hpa=True))
    for path, text in files.items():
        assert "\x1b" not in text, path
        assert "\u202e" not in text, path
    for folder in BUILT:
        assert [identity(o) for o in build(files, folder)] == [identity(o) for o in build(made[1], folder)]
        assert not promising(build(files, folder), "evil", outside="annotations")
    assert "\nkind: ClusterRoleBinding" not in files["README.md"]


def promising(objects, word, *, outside):
    def search(value, key=None):
        if key == outside:
            return False
        if isinstance(value, dict):
            return any(search(v, k) for k, v in value.items())
        return any(map(search, value)) if isinstance(value, list) else word in str(value)

    return search(objects)


def test_an_autoscaler_of_something_else_is_refused(tmp_path):
    text = (REPOSITORY / "tools" / "workloads" / "bundled" / "hpa.yaml").read_text()
    (tmp_path / "hpa.yaml").write_text(text.replace("kind: Deployment", "kind: StatefulSet"))
    with pytest.raises(SpecError, match="scales a StatefulSet"):
        from_spec(asked(hpa=tmp_path / "hpa.yaml"), Choices())


def test_a_workload_whose_name_cannot_name_a_service_needs_another():
    named = asked(name="3d-net")
    with pytest.raises(SpecError, match=r"workload\.name: '3d-net' cannot .* --name"):
        from_spec(named, Choices())
    assert from_spec(named, Choices(name="net")).hpa_name == "net"


# --- writing ---


def test_a_tree_can_be_made_again_from_itself_to_the_byte(made):
    found, files = made
    assert tree(Service.model_validate_json(files["service.json"])) == files
    assert tree(found) == files


def test_a_damaged_service_file_says_where(tmp_path):
    path = tmp_path / "service.json"
    with pytest.raises(SpecError, match="cannot be read"):
        Service.read(path)
    path.write_text(service().model_dump_json().replace('"resnet50"', '"Res Net"', 1))
    with pytest.raises(SpecError, match=r"service\.json: name: 'Res Net' cannot name a service"):
        Service.read(path)


def test_a_new_folder_appears_whole_and_an_identical_one_is_left_alone(tmp_path):
    files = {"a.yaml": "1\n", "b/c.yaml": "2\n"}
    assert write_tree(files, tmp_path / "out").added == ("a.yaml", "b/c.yaml")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert write_tree(files, tmp_path / "out").is_same
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
    (tmp_path / "empty").mkdir()
    write_tree(files, tmp_path / "empty")
    assert (tmp_path / "empty" / "b" / "c.yaml").read_text() == "2\n"


def test_files_that_differ_stay_until_it_is_said_and_others_stay_for_ever(tmp_path):
    folder = on_disk({"a.yaml": "mine\n", "b.yaml": "same\n"}, tmp_path / "out")
    (folder / "notes.md").write_text("theirs\n")
    files = {"a.yaml": "new\n", "b.yaml": "same\n", "c/d.yaml": "more\n"}
    found = compare(files, folder)
    assert (found.added, found.changed) == (("c/d.yaml",), ("a.yaml",))
    assert "-mine\n+new\n" in found.diff
    with pytest.raises(SpecError, match=r"1 file\(s\) there differ: a.yaml.*--force"):
        write_tree(files, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["a.yaml", "b.yaml", "notes.md"]
    assert (folder / "a.yaml").read_text() == "mine\n"
    write_tree(files, folder, force=True)
    assert sorted(p.name for p in folder.iterdir()) == ["a.yaml", "b.yaml", "c", "notes.md"]
    assert (folder / "a.yaml").read_text() == "new\n"


def test_nothing_is_written_over_something_else_than_a_file(tmp_path):
    (tmp_path / "out" / "a.yaml").mkdir(parents=True)
    with pytest.raises(SpecError, match="something else than a text file"):
        write_tree({"a.yaml": "1\n"}, tmp_path / "out", force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="something else than a text file"):
        write_tree({"a.yaml": "1\n"}, tmp_path / "file")


def test_a_folder_that_cannot_be_made_changes_nothing(tmp_path):
    folder = on_disk({"a.yaml": "old\n"}, tmp_path / "out")
    (tmp_path / "full").symlink_to("/proc/self/nothing-can-be-made-here")
    with pytest.raises(StorageError, match="cannot be written"):
        write_tree({"a.yaml": "1\n"}, tmp_path / "full" / "below")
    assert os.listdir(folder) == ["a.yaml"]  # noqa: PTH208  hidden ones too


# --- the command ---


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with one session: a journal, its evidence and a result."""
    home = tmp_path_factory.mktemp("home")
    folder = write_session(home, asked=asked(hpa=True))
    result = sample_result(session=folder.name)
    best = result.best.model_copy(update={"load_ms": 1800.0})
    (folder / "result.json").write_text(result.model_copy(update={"best": best}).model_dump_json())
    return home


def say(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(done.exception, InfertuneError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def test_the_latest_session_becomes_a_tree_that_says_so(home, tmp_path):
    out = tmp_path / "deploy"
    said = say("--home", home, "--out", out)
    assert "from session 20261122-000000-abcd" in said
    assert "The image is a placeholder" in said
    assert "loading the model took" in (out / "base" / "deployment.yaml").read_text()
    assert "is as session 20261122-000000-abcd has it already" in say("2026", "--home", home, "--out", out)
    assert "objects are valid for Kubernetes 1.30 and" in say("--check", out)


def test_a_session_that_broke_a_promise_says_so_beside_its_tree(home, tmp_path):
    folder = home / "sessions" / "20260101-000000-late"
    shutil.copytree(next((home / "sessions").glob("*abcd")), folder)
    result = sample_result(session=folder.name, verdict=Verdict.INFEASIBLE)
    (folder / "result.json").write_text(result.model_dump_json())
    assert "ended INFEASIBLE" in say(folder.name, "--home", home, "--out", tmp_path / "deploy")
    shutil.rmtree(folder)


def test_changes_are_shown_and_need_force(home, tmp_path):
    out = tmp_path / "deploy"
    say("--home", home, "--out", out, "--image", "reg.example/a:1")
    with pytest.raises(SpecError, match=r"differ: service\.json, overlays/staging"):
        say("--home", home, "--out", out, "--image", "reg.example/a:2")
    assert "newTag: '1'" in (out / "overlays" / "production" / "kustomization.yaml").read_text()
    said = say(out / "service.json", "--out", out, "--image", "reg.example/a:2", "--force")
    assert "-  newTag: '1'\n+  newTag: '2'" in said
    assert "Wrote 0 new and 3 changed files" in said


def test_a_spec_alone_and_names_of_ones_own(tmp_path):
    out = tmp_path / "deploy"
    assert "nothing was measured" in say("digits-tiny", "--out", out, "--name", "tiny", "--namespace", "vision")
    objects = build({str(p.relative_to(out)): p.read_text() for p in out.rglob("*.yaml")}, "overlays/production")
    assert {o["metadata"]["namespace"] for o in objects} == {"vision"}
    assert one(objects, "HorizontalPodAutoscaler")["metadata"]["name"] == "tiny"


def test_mistakes_are_sentences(home, tmp_path):
    with pytest.raises(InfertuneError, match=r"--out: there is nowhere to write"):
        say("--home", home)
    with pytest.raises(InfertuneError, match="there is no session"):
        say("1999", "--home", home, "--out", tmp_path / "x")
    with pytest.raises(SpecError, match="--namespace: 'A B' cannot name a namespace"):
        say("--home", home, "--out", tmp_path / "x", "--namespace", "A B")
    assert not (tmp_path / "x").exists()


def test_a_check_that_finds_something_exits_with_3(home, tmp_path):
    out = tmp_path / "deploy"
    say("--home", home, "--out", out)
    (out / "base" / "hpa.yaml").write_text("kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nspec: {a: 1}\n")
    assert "base/hpa.yaml: HorizontalPodAutoscaler spec" in say("--check", out, code=3)


# --- the example in the repository ---


def test_the_committed_tree_is_what_the_command_makes_of_it():
    files = tree(Service.read(DEPLOY / "service.json"))
    assert compare(files, DEPLOY).diff == ""
    there = {str(p.relative_to(DEPLOY)) for p in DEPLOY.rglob("*") if p.is_file()}
    assert there == files.keys(), "infertune manifests deploy/service.json --out deploy --force"


def test_every_figure_of_it_has_a_source():
    found = Service.read(DEPLOY / "service.json")
    sources = [value.source for _, value in found if isinstance(value, Sourced)]
    assert len(sources) > 10
    assert all(sources)
    assert found.session is not None
    assert any("measured in session" in source for source in sources)


def test_no_two_objects_share_a_name_by_accident(made):
    for left, right in itertools.combinations(BUILT[:2], 2):
        names = [{(o["metadata"]["namespace"], *identity(o)) for o in build(made[1], f)} for f in (left, right)]
        assert not names[0] & names[1]
    assert digest_of(made[1]) == digest_of(tree(made[0]))
