"""Webhooks: signed, at least once, not again after success, caught up after an outage. A real server receives them."""

import contextlib
import hashlib
import hmac
import http.server
import json
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from tools.errors import StorageError
from tools.notify import Courier, send_due, send_for
from tools.outbox import CLAIM_S, GIVE_UP_S, LONGEST_RETRY_S, Outbox, Webhook, backoff_s

REPOSITORY = Path(__file__).parents[1]
SECRET = "correct horse battery staple"


class Receiver:
    """A webhook that answers with the codes it is given, one by one, the last for ever."""

    def __init__(self):
        self.codes = [200]
        self.got = []
        self.came = threading.Event()

    @contextlib.contextmanager
    def listening(self, port=0):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body, self.path))
                code = receiver.codes.pop(0) if len(receiver.codes) > 1 else receiver.codes[0]
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.came.set()

            do_GET = do_POST  # noqa: N815  the library's name

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook/{SECRET.split(maxsplit=1)[0]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def ids(self):
        return [headers["X-Infertune-Delivery"] for headers, _, _ in self.got]


class Clock:
    def __init__(self):
        self.now_s = 1_000_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(tmp_path, clock):
    return Outbox(tmp_path / "outbox.db", clock=clock)


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def hook(tmp_path, receiver):
    (tmp_path / "secret").write_text(SECRET + "\n")
    with receiver.listening() as url:
        yield Webhook(url=url, secret_file=str(tmp_path / "secret"))


def test_an_event_arrives_signed_over_its_time_and_body(outbox, hook, receiver, clock):
    assert outbox.put("run-1", hook, {"event": "run_ended", "verdict": "MET"})
    assert send_due(outbox) == 1
    ((headers, body, _),) = receiver.got
    timestamp = headers["X-Infertune-Timestamp"]
    expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Infertune-Signature"] == f"sha256={expected}"
    assert timestamp == str(int(clock()))
    assert json.loads(body) == {"id": "run-1", "event": "run_ended", "verdict": "MET"}


def test_what_was_delivered_is_not_sent_again_even_if_put_again(outbox, hook, receiver, tmp_path, clock):
    outbox.put("run-1", hook, {"event": "a"})
    send_due(outbox)
    again = Outbox(tmp_path / "outbox.db", clock=clock)  # a restart
    assert not again.put("run-1", hook, {"event": "b"})
    clock.now_s += 10 * GIVE_UP_S
    assert send_due(again) == 0
    assert receiver.ids == ["run-1"]


@pytest.mark.parametrize("code", [302, 400, 404, 429, 500, 503])
def test_any_answer_but_success_is_tried_again_and_a_redirect_is_not_followed(outbox, hook, receiver, clock, code):
    receiver.codes = [code, 204]
    outbox.put("run-1", hook, {})
    assert send_due(outbox) == 0
    assert send_due(outbox) == 0  # not due yet
    clock.now_s = outbox.next_s()
    assert send_due(outbox) == 1
    assert [path.startswith("/hook") for _, _, path in receiver.got] == [True, True]


def test_waits_double_up_to_a_quarter_of_an_hour():
    assert [backoff_s(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert backoff_s(11) == backoff_s(10_000) == LONGEST_RETRY_S


def test_an_event_that_nobody_takes_is_given_up_after_three_days_and_kept(outbox, hook, receiver, clock):
    receiver.codes = [500]
    outbox.put("run-1", hook, {})
    begin_s = clock()
    while (next_s := outbox.next_s()) is not None:
        clock.now_s = max(next_s, clock.now_s + 3600)  # somebody looks once an hour
        send_due(outbox)
    assert GIVE_UP_S <= clock() - begin_s <= GIVE_UP_S + 3600
    assert outbox.counts() == (0, 0, 1)


def test_two_senders_do_not_send_the_same_event_at_once(outbox, hook, tmp_path, clock):
    outbox.put("run-1", hook, {})
    other = Outbox(tmp_path / "outbox.db", clock=clock)
    assert outbox.claim().id == "run-1"
    assert other.claim() is None
    clock.now_s += 61  # the first died while it was sending
    assert other.claim().id == "run-1"


def test_a_clock_that_is_set_back_holds_nothing_up(outbox, hook, clock):
    clock.now_s += 1e6
    outbox.put("run-1", hook, {})
    clock.now_s -= 1e6
    assert send_due(outbox) == 1


def test_the_courier_sleeps_until_it_is_woken(tmp_path, hook, receiver):
    outbox, complaints = Outbox(tmp_path / "o.db"), []
    with Courier(outbox, failed=complaints.append) as courier:
        assert not receiver.came.wait(0.05)
        outbox.put("run-1", hook, {})
        courier.wake()
        assert receiver.came.wait(20)
    assert receiver.ids == ["run-1"]
    assert complaints == []
    assert outbox.counts() == (0, 1, 0)


def test_a_server_that_is_away_or_a_secret_that_is_missing_is_tried_again(outbox, tmp_path, receiver, clock):
    (tmp_path / "secret").write_text(SECRET)
    with receiver.listening() as url:
        pass
    hook = Webhook(url=url, secret_file=str(tmp_path / "secret"))
    outbox.put("run-1", hook, {})
    send_due(outbox)
    (tmp_path / "secret").rename(tmp_path / "away")
    clock.now_s = outbox.next_s()
    send_due(outbox)
    (tmp_path / "away").rename(tmp_path / "secret")
    clock.now_s = outbox.next_s()
    with receiver.listening(int(url.split(":")[2].split("/")[0])):
        assert send_due(outbox) == 1


def test_no_secret_is_in_the_outbox_the_log_an_error_or_a_repr(outbox, hook, receiver, tmp_path, clock, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.codes = [500]
    outbox.put("run-1", hook, {"event": "x"})
    send_due(outbox)
    files = b"".join(path.read_bytes() for path in tmp_path.glob("outbox.db*"))
    assert SECRET.encode() not in files
    assert (tmp_path / "outbox.db").stat().st_mode & 0o077 == 0
    told = caplog.text + repr(hook) + hook.shown
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        told += str(connection.execute("SELECT error FROM outbox").fetchall())
    assert SECRET.split(maxsplit=1)[0] not in told  # the URL's path is one, too
    assert "HTTP 500" in told


@pytest.mark.parametrize("url", ["ftp://h/x", "http://", "http://user:pw@h/", "h/x", "http://h:99999/", "http://h/a b"])
def test_what_is_no_address_is_refused_without_repeating_it(url):
    with pytest.raises(ValidationError) as refused:
        Webhook(url=url, secret_env="S")
    assert "http://HOST" in str(refused.value.errors()[0]["msg"])


@pytest.mark.parametrize("secrets", [{}, {"secret_file": "/f", "secret_env": "E"}])
def test_a_webhook_has_exactly_one_secret(secrets):
    with pytest.raises(ValidationError, match="exactly one"):
        Webhook(url="http://h/", **secrets)


def test_an_outbox_that_is_no_database_is_said_so(tmp_path):
    (tmp_path / "outbox.db").write_text("this is no database, it is a text of some length" * 50)
    with pytest.raises(StorageError, match=r"outbox\.db"):
        Outbox(tmp_path / "outbox.db")


# An outage


class Reader:
    """A receiver as it should be: it checks the signature, and knows by its id what it has seen."""

    def __init__(self, got):
        self.events = []
        self.repeats = 0
        for headers, body, _ in got:
            signed = headers["X-Infertune-Timestamp"].encode() + b"." + body
            expected = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
            assert hmac.compare_digest(headers["X-Infertune-Signature"], expected)
            event = json.loads(body)
            if event["id"] in [seen["id"] for seen in self.events]:
                self.repeats += 1
            else:
                self.events.append(event)


@pytest.mark.parametrize("down", ["refuses connections", "answers 503", "answers 429"])
def test_after_an_hour_without_a_webhook_everything_arrives_once_and_in_order(outbox, tmp_path, receiver, clock, down):
    (tmp_path / "secret").write_text(SECRET)
    with receiver.listening() as url:
        pass
    port = int(url.split(":")[2].split("/")[0])
    hook = Webhook(url=url, secret_file=str(tmp_path / "secret"))
    receiver.codes = [200 if down == "refuses connections" else int(down.split()[1])]
    begin_s = clock()

    def hour():
        for number in range(12):  # with ids that sort otherwise than they came
            outbox.put(f"run-{12 - number}", hook, {"number": number})
            until_s = begin_s + 300 * (number + 1)
            while outbox.next_s() <= until_s:
                clock.now_s = max(clock.now_s, outbox.next_s())
                assert send_due(outbox) == 0
            clock.now_s = until_s

    with contextlib.nullcontext() if down == "refuses connections" else receiver.listening(port):
        hour()
    tries = len(receiver.got)
    assert tries < 30, "one event is tried for all of them"
    assert outbox.counts() == (12, 0, 0)
    receiver.codes = [200]
    with receiver.listening(port):
        clock.now_s = outbox.next_s()
        assert clock.now_s - begin_s <= 3600 + LONGEST_RETRY_S
        assert send_due(outbox) == 12
        assert send_due(outbox) == 0
    read = Reader(receiver.got[tries:])
    assert [event["number"] for event in read.events] == list(range(12))
    assert read.repeats == 0


def test_an_event_that_is_refused_steps_aside_for_those_behind_it(outbox, hook, receiver, clock):
    receiver.codes = [422, 200]
    for number in range(3):
        outbox.put(f"run-{number}", hook, {})
    assert send_due(outbox) == 2
    assert receiver.ids == ["run-0", "run-1", "run-2"]
    clock.now_s = outbox.next_s()
    assert send_due(outbox) == 1
    assert receiver.ids[-1] == "run-0"


def test_a_webhook_that_is_down_holds_up_no_other(outbox, hook, tmp_path, clock):
    away = Webhook(url="http://127.0.0.1:9/hook", secret_file=hook.secret_file)
    outbox.put("run-1", away, {})
    outbox.put("run-2", hook, {})
    assert send_due(outbox) == 1
    assert outbox.counts() == (1, 1, 0)


def test_a_clock_that_is_set_back_during_an_outage_holds_nothing_up(outbox, hook, receiver, clock):
    receiver.codes = [503]
    clock.now_s += 1e6
    for number in range(2):
        outbox.put(f"run-{number}", hook, {})
    assert send_due(outbox) == 0
    clock.now_s -= 1e6
    receiver.codes = [200]
    assert send_due(outbox) == 2


def test_a_sender_that_is_killed_between_the_answer_and_its_note_sends_it_again_under_the_same_id(
    tmp_path, hook, receiver, clock
):
    Outbox(tmp_path / "outbox.db").put("run-1", hook, {"verdict": "MET"})
    code = "import os, sys; from pathlib import Path; import tools.notify as n; from tools.outbox import Outbox; "
    code += "post = n._post; n._post = lambda *a: (post(*a), os.kill(os.getpid(), 9)); "
    code += "n.send_due(Outbox(Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "outbox.db"], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert receiver.ids == ["run-1"]
    later = Outbox(tmp_path / "outbox.db", clock=lambda: time.time() + CLAIM_S + 1)
    assert send_due(later) == 1
    read = Reader(receiver.got)
    assert [event["verdict"] for event in read.events] == ["MET"]
    assert read.repeats == 1


def test_what_looks_once_waits_for_a_webhook_that_is_down_but_not_for_ever(outbox, hook, receiver, clock):
    waits = []

    def wait(for_s):
        waits.append(for_s)
        clock.now_s += for_s
        return sum(waits) < 60

    receiver.codes = [503, 503, 200]
    outbox.put("run-1", hook, {})
    send_for(outbox, wait)
    assert outbox.counts() == (0, 1, 0)
    assert waits == [1.0, 2.0]
    receiver.codes = [503]
    outbox.put("run-2", hook, {})
    send_for(outbox, wait)
    assert outbox.counts() == (1, 1, 0)
    assert sum(waits) < 120
