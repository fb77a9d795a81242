"""Which cluster is reached, and as whom; and that no secret is seen by anybody else."""

# ruff: noqa: F811  # a fixture that is imported, and then asked for by name

import socket
from pathlib import Path

import pytest
import yaml
from cluster_support import NAME, NAMESPACE, changed, cluster, failing, production, server  # noqa: F401

from tools.cluster.client import HpaClient
from tools.cluster.connection import connect, open_reader, open_writer
from tools.errors import ClusterError, FenceError


def test_the_current_context_is_never_used(server, cluster, production):
    with open_reader(cluster) as client:
        client.read()
    with open_writer(cluster) as client:
        client.dry_run(changed(client.read(), maxReplicas=6))
    assert [request.user for request in server.log] == ["infertune-reader", "infertune", "infertune"]
    assert production.log == []


def test_an_unknown_context_names_the_known_ones_and_nothing_else(server, cluster):
    with pytest.raises(ClusterError) as caught:
        open_reader(cluster.model_copy(update={"context": "prod"}))
    assert str(caught.value) == (
        f"{cluster.kubeconfig}: has no context 'prod'. "
        "Name one of its contexts: admin, nobody, production, reader, writer."
    )
    assert server.log == []


def test_without_a_writer_nothing_can_be_applied(cluster):
    with pytest.raises(FenceError, match=r"cluster\.writer_context: names nobody who may change the HPA"):
        open_writer(cluster.model_copy(update={"writer_context": None}))


def test_a_writer_of_another_cluster_is_refused(cluster, server, production):
    with pytest.raises(FenceError, match="what is read in one cluster is not changed in another"):
        open_writer(cluster.model_copy(update={"writer_context": "production"}))


def test_a_kubeconfig_is_found_as_kubectl_finds_it(server, cluster, tmp_path, monkeypatch):
    given = cluster.model_copy(update={"kubeconfig": None})
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{cluster.kubeconfig}")
    with open_reader(given) as client:
        assert client.read().name == NAME
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"~/\.kube/config: no such kubeconfig\. Set `cluster\.kubeconfig`"):
        open_reader(given)


def test_in_cluster_outside_of_a_pod_says_so(cluster, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="It is for a pod with a service account"):
        open_reader(cluster.model_copy(update={"context": "in-cluster"}))


SECRET = "very-secret-token"


def kubeconfig(tmp_path, change):
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://203.0.113.1:6443"}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    change(config)
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["contexts"][0]["context"].update(cluster="gone"), "context 'x' is incomplete"),
        (lambda c: c["contexts"].append(c["contexts"][0]), "has more than one context 'x'"),
        (lambda c: c["users"][0].pop("name"), "context 'x' is incomplete"),
        (lambda c: c["clusters"][0].update(cluster={}), "context 'x' names a cluster without an address"),
        (
            lambda c: c["clusters"][0]["cluster"].update({"certificate-authority": "/absent"}),
            "a file that is not there",
        ),
        (lambda c: c["clusters"][0]["cluster"].update(server="http://203.0.113.1"), "reaches its server without TLS"),
        (
            lambda c: c["clusters"][0]["cluster"].update({"insecure-skip-tls-verify": True}),
            "without a check of its certificate",
        ),
        (lambda c: c["clusters"][0]["cluster"].update(server="https://[::1"), "context 'x' is incomplete"),
        (lambda c: c.update(contexts=None), "Name one of its contexts: none"),
        (lambda c: c.update(contexts=[1, {"name": "y\x1b[2J"}]), r"Name one of its contexts: y\\x1b\[2J\."),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_told_without_its_secrets(tmp_path, change, message):
    with pytest.raises(ClusterError, match=message) as caught:
        connect("x", kubeconfig(tmp_path, change))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_kubeconfig_that_is_no_yaml_is_told_without_quoting_it(tmp_path):
    path = tmp_path / "config"
    path.write_text(f"users:\n- token: {SECRET}\n  token: [\n")
    with pytest.raises(ClusterError, match=r"is not valid YAML \(line \d\)") as caught:
        connect("x", str(path))
    assert SECRET not in str(caught.value)


def test_a_token_file_may_end_with_a_line_end(server, cluster, tmp_path):
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    token = tmp_path / "token"
    token.write_text(server.access.add("infertune-reader") + "\n")
    config["users"][0]["user"] = {"tokenFile": str(token)}
    path = tmp_path / "with-file"
    path.write_text(yaml.safe_dump(config))
    with open_reader(cluster.model_copy(update={"kubeconfig": str(path)})) as client:
        assert client.read().name == NAME


def test_a_token_that_no_header_may_hold_is_refused_without_repeating_it(server, cluster, tmp_path):
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": f"{SECRET}\nHost: elsewhere"}
    path = tmp_path / "with-lines"
    path.write_text(yaml.safe_dump(config))
    error = failing(open_reader, cluster.model_copy(update={"kubeconfig": str(path)}))
    assert (error.kind, SECRET in str(error), server.log) == ("unauthorized", False, [])


def test_a_server_that_does_not_speak_tls_is_unreachable(server, cluster, tmp_path):
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    for entry in config["clusters"]:
        entry["cluster"]["server"] = server.url.replace("http:", "https:")
    path = tmp_path / "tls"
    path.write_text(yaml.safe_dump(config))
    connection = connect("reader", str(path))
    waits = []
    connection._sleep = waits.append
    with HpaClient(connection, namespace=NAMESPACE, name=NAME) as client:
        error = failing(client.read)
    assert (error.kind, "SSL" in str(error), waits) == ("unreachable", True, [0.5, 1.0])


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(server, cluster, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, address)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with open_reader(cluster) as client:
            assert client.read().name == NAME


def test_a_token_is_in_no_text_that_anybody_sees(server, cluster, caplog):
    caplog.set_level("DEBUG")
    token = server.access.add("infertune-reader")
    with open_reader(cluster) as client:
        server.fail_next("get", status=403, message=f"the token {token} is not for you")
        error = failing(client.read)
        # Shortening takes the middle out of a text: no part of a token may be left at the edge.
        server.fail_next("get", status=403, message="x" * 180 + token + "y" * 400)
        cut = str(failing(client.read))
        client.read()
        texts = [repr(client), repr(client.connection), str(error), repr(error), caplog.text]
    assert not any(token in text for text in texts)
    assert token[:8] not in cut
    assert "the token [redacted] is not for you" in str(error)
