"""What a broken, locked or lying Prometheus leads to: one clear sentence, and never the token."""

import datetime as dt
import gzip
import json
import logging
import ssl
import threading
import traceback

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_support import serving
from urllib3.exceptions import MaxRetryError, NameResolutionError

from tools.errors import InfertuneError, SpecError, TrafficError
from tools.spec import PrometheusSpec
from tools.traffic import read_traffic, to_trace, write_observed
from tools.traffic.failures import of_exception
from tools.traffic.transport import proxies_for

END = 1704672000.0
SECRET = "s3cr3t-Bearer.token_of+somebody=="
POINTS = [(END - 60 * age, 100 + age % 7) for age in range(60, -1, -1)]


def spec(url, **settings):
    defaults = {"queries": {"request_rate": "sum(rate(x[2m]))"}, "window_s": 3600, "timeout_s": 5}
    return PrometheusSpec(url=url, **defaults | settings)


def read(url, **settings):
    return read_traffic(spec(url, **settings), end_s=END)


def sound(request):
    request.matrix(POINTS)


def echo(request):
    """What the request carried, as some debugging proxies show it."""
    return json.dumps(request.headers)


def cut(request):
    request.reply('{"status":"success","data":{"resultType":"matrix","result":[{"metric"', length=5000)


def trickling(request):
    request.handler.send_response(200)
    request.handler.end_headers()
    for _ in range(200):
        request.handler.wfile.write(b" ")
        if OVER.wait(0.05):
            return


def silent(_request):
    OVER.wait(20)


def breaking_off(_request):
    raise OSError


def prometheus_error(kind, text):
    return json.dumps({"status": "error", "errorType": kind, "error": text})


OVER = threading.Event()
"""Ends the servers that wait."""

FAULTS = {
    "401": (lambda r: r.reply(echo(r), status=401), "token"),
    "403": (lambda r: r.reply(echo(r), status=403), "token"),
    "404": (
        lambda r: r.reply("404 page not found " + echo(r), status=404, content_type="text/plain"),
        "no Prometheus API",
    ),
    "login page": (
        lambda r: r.reply(f"<html>{echo(r)}</html>", content_type="text/html"),
        "with a web page, not with data",
    ),
    "login page that says json": (lambda r: r.reply(f"\n<!doctype html>{echo(r)}"), "with a web page"),
    "redirect": (lambda r: r.reply(status=302, Location=f"/login?was={SECRET}"), "redirects to another page .302."),
    "redirect away": (lambda r: r.reply(status=307, Location="http://127.0.0.1:1/"), "redirects to another page"),
    "broken json": (lambda r: r.reply('{"status": success, ' + echo(r)), "no whole JSON"),
    "nothing": (lambda r: r.reply(), "no whole JSON"),
    "cut": (cut, "no whole JSON|broke the connection off"),
    "not gzip": (lambda r: r.reply(echo(r), **{"Content-Encoding": "gzip"}), "broke the connection off"),
    "other json": (lambda r: r.reply(echo(r)), "JSON that is not Prometheus's"),
    "a list": (lambda r: r.reply("[1, 2]"), "JSON that is not Prometheus's"),
    "odd result": (
        lambda r: r.reply('{"status":"success","data":{"result":[{"metric":[],"values":"xy"}]}}'),
        "not as Prometheus's",
    ),
    "odd value": (lambda r: r.matrix([(END, "many")]), "not as Prometheus's"),
    "bad query": (
        lambda r: r.reply(prometheus_error("bad_data", f"parse error {echo(r)}"), status=400),
        r"does not take the query \(400\): parse error .* The query: sum\(rate\(x\[2m\]\)\)",
    ),
    "error with 200": (lambda r: r.reply(prometheus_error("bad_data", "nonsense")), "does not take the query"),
    "422": (
        lambda r: r.reply(prometheus_error("execution", "query processing would load too many samples"), status=422),
        "cannot run the query .*too many samples",
    ),
    "timeout of its own": (
        lambda r: r.reply(prometheus_error("timeout", "query timed out in expression evaluation"), status=503),
        "took too long over the query",
    ),
    "internal": (lambda r: r.reply(prometheus_error("internal", echo(r)), status=500), r"failed \(500\)"),
    "502": (lambda r: r.reply(f"<html>Bad Gateway {echo(r)}</html>", status=502), r"failed \(502\): without a word"),
    "503": (lambda r: r.reply("Service Unavailable " + echo(r), status=503), r"failed \(503\): Service Unavailable"),
    "418": (lambda r: r.reply(echo(r), status=418), r"failed \(418\)"),
    "breaks off": (breaking_off, "broke the connection off"),
    "silent": (silent, "did not answer within 0.3 s"),
    "trickling": (trickling, "did not answer within 0.3 s"),
    "empty": (lambda r: r.matrix(), "`request_rate` has no data"),
    "empty series": (lambda r: r.matrix([]), "`request_rate` has no data"),
    "only NaN": (lambda r: r.matrix([(second, "NaN") for second, _ in POINTS]), "61 NaN and 0 infinite values, and no"),
    "stale": (lambda r: r.matrix(POINTS[:40]), "ended at .* 21 min before the window's end"),
    "less than half": (lambda r: r.matrix(POINTS[35:]), "26 points for the 60 min asked for, 43% of them"),
    "several series": (
        lambda r: r.matrix(({"a": "1"}, POINTS), ({"a": SECRET}, POINTS)),
        "2 series, told apart by `a`",
    ),
    "brackets without end": (lambda r: r.reply("[" * 200_000), "no whole JSON"),
    "a secret at the cut": (
        lambda r: r.reply(prometheus_error("bad_data", "x" * 290 + SECRET), status=400),
        r"x{290}\*\*\*\. The query",
    ),
    "label names": (lambda r: r.matrix(({SECRET: "1"}, POINTS), ({"a": "2"}, POINTS)), r"told apart by `a`, `\*\*\*`"),
    "native histogram": (
        lambda r: r.reply('{"status":"success","data":{"result":[{"metric":{},"histograms":[]}]}}'),
        "native histograms",
    ),
}


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch):
    monkeypatch.setattr("tools.traffic.transport.BACKOFF_S", (0.01, 0.02))
    OVER.clear()
    yield
    OVER.set()


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_sentence_without_the_token(fault, token_file, caplog):
    answer, message = FAULTS[fault]
    caplog.set_level(logging.DEBUG)

    with serving(answer) as (url, asked):
        try:
            with pytest.raises(TrafficError, match=message) as caught:
                read(url, token_file=str(token_file), timeout_s=0.3 if fault in ("silent", "trickling") else 5)
        finally:
            OVER.set()
    assert asked
    assert asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert str(caught.value).startswith(f"{url}: ")
    assert caught.value.fix
    told = "".join([repr(caught.value), *traceback.format_exception(caught.value), caplog.text])
    assert SECRET not in told
    assert caught.value.__cause__ is None


def test_a_locked_prometheus_without_a_token_asks_for_one():
    with serving(lambda request: request.reply(status=401)) as (url, _), pytest.raises(TrafficError) as caught:
        read(url)
    assert "asks for a token, and none is configured (401)" in str(caught.value)
    assert "`token_file` or `token_env`" in str(caught.value)


def test_nobody_at_the_port_is_said_so():
    with serving(sound) as (url, _):
        pass
    with pytest.raises(TrafficError, match=r"refuses the connection\. Check `traffic.prometheus.url`"):
        read(url)


def test_a_name_that_cannot_be_found_is_said_so():
    # As requests raises it; a real look-up would leave this machine.
    unknown = NameResolutionError("nowhere", None, OSError(-2, "Name or service not known"))
    error = requests.ConnectionError(MaxRetryError(None, "/", unknown))
    assert "cannot be found (DNS)" in of_exception(error, timeout_s=1).what


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port", "http:///path", f"http://{'a' * 64}.example"])
def test_an_address_that_is_none_is_said_so(url):
    with pytest.raises(InfertuneError, match=r"not an address|cannot be called|cannot be found"):
        read(url)


# --- trying again ---


def test_a_passing_fault_is_tried_again_and_what_does_not_pass_is_not():
    def after(faults, reply):
        with serving(lambda r: reply(r) if len(got) <= faults else sound(r)) as (url, got):
            try:
                return len(read(url).signals), len(got)
            except TrafficError:
                return 0, len(got)

    assert after(1, lambda r: r.reply("starting", status=503)) == (1, 2)
    assert after(2, breaking_off) == (1, 3)
    assert after(9, lambda r: r.reply("starting", status=503)) == (0, 3)
    assert after(1, lambda r: r.reply(prometheus_error("execution", "no"), status=422)) == (0, 1)
    assert after(1, lambda r: r.reply(prometheus_error("timeout", "no"), status=503)) == (0, 1)


def test_an_answer_that_is_far_too_large_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr("tools.traffic.transport.MAX_ANSWER_BYTES", 100_000)
    body = gzip.compress(b" " * 10_000_000)
    with (
        serving(lambda r: r.reply(body, **{"Content-Encoding": "gzip"})) as (url, _),
        pytest.raises(TrafficError, match="too much data for one query"),
    ):
        read(url)


# --- odd, but usable ---


def test_compressed_answers_and_warnings_are_read(token_file, tmp_path):
    def warned(request):
        body = {"status": "success", "warnings": [f"1 store is down {SECRET}"]}
        body["data"] = {"resultType": "matrix", "result": [{"metric": {}, "values": [[t, str(v)] for t, v in POINTS]}]}
        request.reply(gzip.compress(json.dumps(body).encode()), **{"Content-Encoding": "gzip"})

    with serving(warned) as (url, _):
        observed = read(url, token_file=str(token_file))
    assert observed.signal("request_rate").points == tuple(POINTS)
    assert observed.findings == ("Prometheus warns about `request_rate`: 1 store is down ***.",)
    write_observed(observed, tmp_path / "week.json")
    assert SECRET not in (tmp_path / "week.json").read_text()
    assert SECRET not in repr(observed)


def test_a_series_that_comes_twice_counts_once():
    with serving(lambda request: request.matrix(POINTS, POINTS)) as (url, _):
        observed = read(url)
    assert observed.signal("request_rate").points == tuple(POINTS)
    assert observed.findings == ("`request_rate` has 61 points twice: each counts once.",)


def test_of_two_values_for_a_moment_the_larger_counts():
    more = [(second, value + second % 2 + 1) for second, value in POINTS]
    with serving(lambda request: request.matrix(more, POINTS)) as (url, _):
        observed = read(url)
    assert observed.signal("request_rate").points == tuple(more)
    assert observed.findings == ("`request_rate` has two values for 61 moments: the larger one counts.",)


def test_half_a_window_and_another_step_are_named():
    with serving(lambda request: request.matrix(POINTS[20::2])) as (url, _):
        findings = read(url).findings
    assert "`request_rate` has a point every 2 min, not every 60 s as asked." in findings
    assert any("the first 20 min of the window are not there" in finding for finding in findings)


def test_points_of_any_order_make_an_ascending_trace():
    with serving(lambda request: request.matrix(POINTS[::-1])) as (url, _):
        trace = to_trace(read(url))
    assert len(trace.seconds) == len(POINTS)


def test_what_is_asked_is_get_with_the_exact_grid():
    with serving(sound) as (url, asked):
        read_traffic(spec(f"{url}/prefix/", step_s=22.5), end_s=END + 7)
    assert asked[0].path == "/prefix/api/v1/query_range"
    assert asked[0].params == {
        "query": "sum(rate(x[2m]))",
        "start": f"{END - 3600:.3f}",
        "end": f"{END:.3f}",
        "step": "22.5",
        "timeout": "5s",
    }


# --- credentials ---


def test_the_token_is_read_anew_each_time(token_file):
    with serving(sound) as (url, asked):
        read(url, token_file=str(token_file))
        token_file.write_text("another\r\n")
        read(url, token_file=str(token_file))
    assert [request.headers["Authorization"] for request in asked] == [f"Bearer {SECRET}", "Bearer another"]


def test_the_token_may_come_from_the_environment_and_netrc_does_not_replace_it(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("PROMETHEUS_TOKEN", SECRET)
    with serving(sound) as (url, asked):
        read(url, token_env="PROMETHEUS_TOKEN")
        read(url)
    assert asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert "Authorization" not in asked[1].headers


@pytest.mark.parametrize("content", ["", "\n", "two words", "Bearer x", "line\nbreak", "umlaut-\u00fc", "bell\x07"])
def test_what_is_no_token_is_refused_without_being_shown(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content)
    with serving(sound) as (url, asked), pytest.raises(SpecError) as caught:
        read(url, token_file=str(path))
    assert asked == []
    assert not content.strip() or content.strip() not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_credentials_say_which(monkeypatch, tmp_path):
    monkeypatch.delenv("PROMETHEUS_TOKEN", raising=False)
    none = str(tmp_path / "none")
    cases = (
        ({"token_env": "PROMETHEUS_TOKEN"}, "environment variable PROMETHEUS_TOKEN: is not set"),
        ({"token_file": none}, "token_file` names it"),
        ({"ca_file": none}, "ca_file` names it"),
        ({"cert_file": none, "key_file": none}, "cert_file` names it"),
    )
    for settings, message in cases:
        with pytest.raises(SpecError, match=message):
            read("http://127.0.0.1:1", **settings)


def test_a_token_that_goes_over_the_network_unencrypted_is_named(token_file, monkeypatch):
    with serving(sound) as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        observed = read("http://prometheus.example:9090", token_file=str(token_file))
    assert asked
    assert "The token was sent without encryption (http): use https." in observed.findings


# --- proxies ---


def test_no_proxy_stands_before_this_machine_and_the_environment_s_before_others(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "inside.example")
    with serving(sound) as (url, _):
        assert len(read(url).signals) == 1
    for near in ("http://localhost:9090", "http://127.0.0.9", "http://[::1]:9090", "http://inside.example"):
        assert "http" not in proxies_for(near)
    assert proxies_for("http://prometheus.example")["http"] == "http://127.0.0.1:1"
    with pytest.raises(TrafficError, match=r"through the proxy|refuses the connection"):
        read("http://prometheus.example")


# --- TLS ---


def certificate(folder, name, *, issuer=None, hosts=(), lasting=True):
    """Write NAME.pem and NAME.key, signed by `issuer` or by itself; return certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signing = (subject, key) if issuer is None else (issuer[0].subject, issuer[1])
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(days=1) if lasting else now - dt.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(host) for host in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    made = builder.sign(signing, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
    return made, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    from ipaddress import ip_address

    folder = tmp_path_factory.mktemp("tls")
    authority = certificate(folder, "authority")
    certificate(folder, "server", issuer=authority, hosts=[ip_address("127.0.0.1")])
    certificate(folder, "elsewhere", issuer=authority, hosts=[ip_address("127.0.0.2")])
    certificate(folder, "expired", issuer=authority, hosts=[ip_address("127.0.0.1")], lasting=False)
    certificate(folder, "client", issuer=authority)
    return folder


def tls(folder, name="server", *, clients=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "authority.pem")
    return context


def test_https_is_read_with_the_authority_that_the_spec_names(certificates):
    with serving(sound, tls=tls(certificates)) as (url, _):
        assert len(read(url, ca_file=str(certificates / "authority.pem")).signals) == 1


@pytest.mark.parametrize(
    ("name", "trusted", "message"),
    [
        ("server", None, "certificate that is not trusted: .*issuer"),
        ("elsewhere", "authority.pem", "certificate that is not trusted: .*mismatch"),
        ("expired", "authority.pem", "certificate that is not trusted: .*expired"),
    ],
)
def test_a_certificate_that_cannot_be_trusted_says_why(certificates, name, trusted, message):
    ca_file = None if trusted is None else str(certificates / trusted)
    with serving(sound, tls=tls(certificates, name)) as (url, asked), pytest.raises(TrafficError, match=message):
        read(url, ca_file=ca_file)
    assert asked == []


def test_a_client_certificate_opens_what_asks_for_one(certificates):
    authority = str(certificates / "authority.pem")
    with serving(sound, tls=tls(certificates, clients=True)) as (url, _):
        client = {"cert_file": str(certificates / "client.pem"), "key_file": str(certificates / "client.key")}
        assert len(read(url, ca_file=authority, **client).signals) == 1
        with pytest.raises(TrafficError, match=r"TLS|broke the connection off"):
            read(url, ca_file=authority)


def test_files_that_hold_no_certificate_are_no_traceback(certificates):
    with serving(sound, tls=tls(certificates)) as (url, _):
        for settings in (
            {"ca_file": str(certificates / "server.key")},
            {"cert_file": str(certificates / "client.pem"), "key_file": str(certificates / "server.key")},
        ):
            with pytest.raises(InfertuneError) as caught:
                read(url, **settings)
            assert "PRIVATE" not in str(caught.value)


def test_https_to_a_port_that_speaks_http_and_the_reverse_are_said(certificates):
    with serving(sound) as (url, _), pytest.raises(TrafficError, match="does not agree on TLS"):
        read(url.replace("http:", "https:"))
    with serving(sound, tls=tls(certificates)) as (url, _), pytest.raises(TrafficError):
        read(url.replace("https:", "http:"))
