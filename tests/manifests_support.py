"""What tests of manifests need: services to make trees of, a small kustomize, published schemas, and promtool."""

import copy
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from sample_result import sample_result

from tools.manifests.check import OLDEST
from tools.manifests.gather import Choices, from_session
from tools.spec import TuningSpec

BUNDLED_HPA = Path(__file__).parents[1] / "tools" / "workloads" / "bundled" / "hpa.yaml"
CRDS = json.loads((Path(__file__).parent / "crd_schemas.json").read_text())
VERSIONS = (OLDEST, kubernetes_validate.latest_version())
BUILT = ("overlays/staging", "overlays/production", "overlays/staging-keda", "overlays/production-keda")
TIMEOUT_S = 60


def asked(*, hpa=None, name="resnet50", **parts):
    """A spec with these parts; `hpa=True` is the bundled HPA as the one in use, else a file of one."""
    raw = {
        "workload": {"name": name, "model": {"factory": "model.py:build"}, "evaluation": {"npz": "data.npz"}},
        "objective": {"p99_ms": 50},
        "hardware": {"price_per_hour_usd": 0.1},
        **parts,
    }
    if hpa:
        raw["hpa"] = {"file": str(BUNDLED_HPA if hpa is True else hpa)}
    return TuningSpec.model_validate(raw)


def service(*, result=None, load_ms=1800.0, choices=None, **spec_fields):
    """What the sample session recommends, whose model took so long to load."""
    result = result or sample_result()
    best = None if result.best is None else result.best.model_copy(update={"load_ms": load_ms})
    result = result.model_copy(update={"best": best})
    return from_session(result, asked(**spec_fields), choices or Choices(image="reg.example/m:1"))


# --- kustomize ---


def build(files, folder):
    """Build a kustomization: as much of kustomize as the trees use."""
    kustomization = yaml.safe_load(files[f"{folder}/kustomization.yaml"])
    objects = []
    for name in [*kustomization.pop("resources", []), *kustomization.pop("components", [])]:
        path = os.path.normpath(f"{folder}/{name}")
        is_folder = f"{path}/kustomization.yaml" in files
        objects += build(files, path) if is_folder else list(yaml.safe_load_all(files[path]))
    for patch in kustomization.pop("patches", []):
        objects = _patched(objects, yaml.safe_load(files[f"{folder}/{patch['path']}"]))
    namespace = kustomization.pop("namespace", None)
    for manifest in objects:
        if namespace is not None:
            manifest["metadata"]["namespace"] = namespace
            for subject in manifest.get("subjects", []):
                subject["namespace"] = namespace
    for image in kustomization.pop("images", []):
        new = image["newName"] + (f"@{image['digest']}" if "digest" in image else f":{image['newTag']}")
        for container in _containers(objects):
            container["image"] = new if container["image"] == image["name"] else container["image"]
    assert kustomization.keys() == {"apiVersion", "kind"}, "this small kustomize knows no more"
    return objects


def _patched(objects, patch):
    (target,) = [o for o in objects if identity(o) == identity(patch)]
    if patch.get("$patch") == "delete":
        return [o for o in objects if o is not target]
    assert not any(isinstance(value, list | dict) for value in patch["spec"].values()), "only scalars are merged here"
    target["spec"] |= patch["spec"]
    return objects


def identity(manifest):
    return manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]


def _containers(value):
    if isinstance(value, dict):
        yield from value.get("containers", [])
        value = list(value.values())
    for part in value if isinstance(value, list) else []:
        yield from _containers(part)


def kubectl_kustomize(folder):
    """Build with the real kustomize that is in kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(objects, kind, name=None):
    """The only object of this kind (and name)."""
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def assert_valid(manifest):
    """Validate one object against what its API publishes, unknown fields forbidden."""
    manifest = copy.deepcopy(manifest)
    manifest["metadata"].pop("namespace", None)  # the same object elsewhere is not validated again
    _validate(json.dumps(manifest, sort_keys=True).replace("inference-staging", "inference"))


@functools.cache
def _validate(text):
    manifest = json.loads(text)
    if manifest["kind"] in CRDS:
        jsonschema.validate(manifest, CRDS[manifest["kind"]])
        return
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


# --- promtool ---


def promtool(*arguments, cwd):
    """Run promtool; return whether it was content, and what it said. Skip where there is none."""
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool: install Debian's `prometheus`")
    done = subprocess.run(
        ["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr


def run_rule_tests(groups, tests, folder, *, interval):
    """Run promtool's unit tests on rule groups."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    text = {"rule_files": ["rules.yaml"], "evaluation_interval": interval, "tests": tests}
    (folder / "tests.yaml").write_text(yaml.safe_dump(text))
    return promtool("test", "rules", "tests.yaml", cwd=folder)
