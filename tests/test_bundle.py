"""Sessions in a file: what goes in comes out, and nothing else gets in."""

import functools
import hashlib
import io
import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from evidence_support import everything_in, finding, loaded, started, trial, write_raw, write_session
from quick_cli import quicken
from session_support import with_traffic, write_spec

import agent.loading
from agent.questions import explain, what_if
from agent.replay import replay
from tools.bundle import FINDINGS, MANIFEST, BundleError, collect, write
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.journal import Journal
from tools.lock import BusyError, held
from tools.record import JOURNAL, LOCK, read_record
from tools.spec import TrafficSpec
from tools.unbundle import import_bundle

REPOSITORY = Path(__file__).parents[1]
RAW = "raw/q1-aa.npz"


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    write_raw(home, "q1-aa.npz")
    write_session(home, "s1", [trial("q1", raw="q1-aa.npz"), trial("q0", session="earlier", raw="q0-lost.npz")])
    return home


@pytest.fixture
def bundle(home, tmp_path):
    write(collect(home / "sessions" / "s1"), tmp_path / "s1.infertune.zip")
    return tmp_path / "s1.infertune.zip"


@pytest.fixture
def other(tmp_path):
    return tmp_path / "other"


def bring(path, home, limit_mb=100.0):
    return import_bundle(path, home, limit_mb=limit_mb)


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, members, *, manifest=None, extra=()):
    """Write a bundle by hand; digests are put right, so that only what is meant to be wrong is wrong."""
    told = json.loads(members[MANIFEST])
    rest = {name: content for name, content in members.items() if name != MANIFEST}
    told["members"] = {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in rest.items()}
    told |= manifest or {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [(MANIFEST, json.dumps(told)), *rest.items(), *extra]:
            archive.writestr(name, content)
    return path


def refused(path, home, message, **arguments):
    """Check that an import is refused, and that it leaves the home directory as it was."""
    before = everything_in(home) if home.exists() else {}
    with pytest.raises(BundleError, match=message):
        bring(path, home, **arguments)
    assert (everything_in(home) if home.exists() else {}) == before
    assert not (home / EVIDENCE).exists() or EvidenceStore(home / EVIDENCE).rows() == []


def test_a_session_comes_out_as_it_went_in(home, bundle, other):
    done = bring(bundle, other)
    assert (done.session, done.evidence, done.raw, done.is_new) == ("s1", 2, 1, True)
    before, after = everything_in(home), everything_in(other)
    assert after == {name: content for name, content in before.items() if "logs" not in name}
    record = read_record(other / "sessions" / "s1")
    assert record.loaded.spec.traffic.trace == str(other / "sessions" / "s1" / "inputs" / "traffic.csv")
    ids = read_record(home / "sessions" / "s1").evidence
    assert EvidenceStore(other / EVIDENCE).get_all(ids) == EvidenceStore(home / EVIDENCE).get_all(ids)
    assert sorted(p.name for p in (other / "sessions").iterdir()) == [".lock", "s1"]


def test_a_bundle_says_what_is_in_it(home, bundle):
    contents = collect(home / "sessions" / "s1")
    assert (contents.evidence, contents.raw, contents.missing_raw) == (2, 1, ("q0-lost.npz",))
    assert list(members_of(bundle)) == [MANIFEST, *contents.members]
    assert set(contents.members) == {FINDINGS, JOURNAL, RAW, "inputs/traffic.csv", "report.html"}
    assert contents.size_mb == pytest.approx(sum(len(c) for n, c in members_of(bundle).items() if n != MANIFEST) / 1e6)
    without = collect(home / "sessions" / "s1", raw=False)
    assert (without.raw, without.missing_raw) == (0, ())


def test_the_same_content_gives_the_same_bytes(home, bundle, tmp_path):
    write(collect(home / "sessions" / "s1"), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_what_was_imported_exports_to_the_same_bytes(bundle, other, tmp_path):
    bring(bundle, other)
    write(collect(other / "sessions" / "s1"), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_a_file_that_is_there_is_replaced_only_when_asked(home, bundle, tmp_path):
    contents = collect(home / "sessions" / "s1")
    bundle.write_bytes(b"precious")
    with pytest.raises(BundleError, match="--force"):
        write(contents, bundle)
    assert bundle.read_bytes() == b"precious"
    write(contents, bundle, overwrite=True)
    assert zipfile.is_zipfile(bundle)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "s1.infertune.zip"]


def test_a_folder_that_is_not_there_is_said(home, tmp_path):
    with pytest.raises(StorageError, match=r"nowhere/x\.zip: cannot be written \(No such file"):
        write(collect(home / "sessions" / "s1"), tmp_path / "nowhere" / "x.zip")


def test_a_session_whose_folder_was_renamed_keeps_its_name(home, other, tmp_path):
    folder = (home / "sessions" / "s1").rename(home / "sessions" / "the good one")
    write(collect(folder), tmp_path / "x.zip")
    assert bring(tmp_path / "x.zip", other).folder == other / "sessions" / "s1"


def test_a_running_session_is_taken_as_far_as_its_last_whole_line(home, other, tmp_path):
    folder = home / "sessions" / "s1"
    with held(folder / LOCK, busy=""), held(home / LOCK, busy="", shared=True):
        with (folder / JOURNAL).open("a") as stream:
            stream.write('{"seq": 6, "at": "2026')
        write(collect(folder), tmp_path / "running.zip")
    bring(tmp_path / "running.zip", other)
    assert len(read_record(other / "sessions" / "s1").evidence) == 2


def test_evidence_that_is_missing_is_named(home):
    lost = finding("never stored")
    Journal(home / "sessions" / "s1" / JOURNAL).append(
        "evidence", {"id": lost.id, "question": lost.question, "kind": "trial", "recipe": "r"}
    )
    with pytest.raises(BundleError, match=f"1 of 3 pieces of evidence of session s1 are missing or damaged: {lost.id}"):
        collect(home / "sessions" / "s1")


def test_nothing_is_exported_or_imported_while_the_home_is_tidied_up(home, bundle, other):
    with held(home / LOCK, busy=""), pytest.raises(BusyError, match="tidied up"):
        collect(home / "sessions" / "s1")
    with held(other / LOCK, busy=""), pytest.raises(BusyError, match="tidied up"):
        bring(bundle, other)


def test_two_imports_do_not_get_into_each_others_way(bundle, other):
    with held(other / "sessions" / LOCK, busy=""), pytest.raises(BusyError, match="another import is running"):
        bring(bundle, other)
    assert bring(bundle, other).is_new


def test_an_import_may_be_repeated_and_repairs_what_was_lost(bundle, other):
    bring(bundle, other)
    before = everything_in(other)
    (other / RAW).unlink()
    store = EvidenceStore(other / EVIDENCE)
    store.delete([store.rows()[0].id])
    assert not bring(bundle, other).is_new
    assert everything_in(other) == before
    assert len(store.rows()) == 2


def test_a_session_that_went_on_since_is_there_already(home, bundle):
    Journal(home / "sessions" / "s1" / JOURNAL).append("recorded", {"run_id": "r"})
    before = everything_in(home)
    assert not bring(bundle, home).is_new
    assert everything_in(home) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("digits-tiny", "digits-huge"), "another session of the same name"),
        (lambda text: text[: text.rindex("{")], "an earlier state of it"),
        (lambda text: "", "another session of the same name"),
    ],
)
def test_another_session_of_the_same_name_is_not_touched(bundle, home, change, message):
    journal = home / "sessions" / "s1" / JOURNAL
    journal.write_text(change(journal.read_text()))
    before = everything_in(home)
    with pytest.raises(BundleError, match=message):
        bring(bundle, home)
    assert everything_in(home) == before


def test_another_raw_file_of_the_same_name_is_not_touched(bundle, other):
    (other / "raw").mkdir(parents=True)
    (other / RAW).write_bytes(b"of mine")
    refused(bundle, other, "another raw file")


@pytest.mark.parametrize(
    "name",
    [
        "../escaped.txt",
        "/etc/escaped.txt",
        "raw/../../escaped.npz",
        "raw/deep/er.npz",
        "raw/.hidden.npz",
        "raw/q1-aa.txt",
        "inputs/..",
        "inputs/a\\b",
        "inputs/bell\x07",
        "inputs/" + "n" * 256,
        "logs/worker.log",
        "artifacts/aa/model.onnx",
        "sub/hpa.infertune.yaml",
        ".lock",
        "notes.txt",
    ],
)
def test_members_that_do_not_belong_there_are_refused(bundle, other, tmp_path, name):
    path = pack(tmp_path / "x.zip", members_of(bundle) | {name: b""})
    refused(path, other, "nothing that belongs into a bundle")
    assert not list(tmp_path.rglob("*escaped*"))


def test_links_are_refused(bundle, other, tmp_path):
    link = zipfile.ZipInfo("report.html")
    link.external_attr = 0o120777 << 16
    members = members_of(bundle)
    del members["report.html"]
    path = pack(tmp_path / "x.zip", members, extra=[(link, "/etc/passwd")])
    refused(path, other, "no plain file")


@pytest.mark.parametrize("twin", ["report.html", "REPORT.HTML"])
def test_names_that_some_system_takes_for_one_are_refused(bundle, other, tmp_path, twin):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # zipfile dislikes it, too
        path = pack(tmp_path / "x.zip", members_of(bundle), extra=[(twin, b"")])
    refused(path, other, "in it twice")


def test_members_that_the_manifest_lacks_and_names_without_members_are_refused(bundle, other, tmp_path):
    refused(pack(tmp_path / "x.zip", members_of(bundle), extra=[("inputs/more", b"")]), other, "'inputs/more' is named")
    refused(pack(tmp_path / "x.zip", members_of(bundle), manifest={"members": {}}), other, "but not both")


@pytest.mark.parametrize("name", [JOURNAL, FINDINGS, RAW, "inputs/traffic.csv"])
def test_content_that_is_not_what_the_manifest_says_is_refused(bundle, other, tmp_path, name):
    members = members_of(bundle)
    told = json.loads(members[MANIFEST])["members"]
    members[name] = members[name][:-1] + b"?"
    refused(pack(tmp_path / "x.zip", members, manifest={"members": told}), other, "not what the manifest says")


def test_more_than_is_allowed_is_refused_before_it_is_unpacked(bundle, other, tmp_path):
    path = pack(tmp_path / "x.zip", members_of(bundle) | {"inputs/zeros": bytes(30_000_000)})
    assert path.stat().st_size < 1e6
    refused(path, other, r"takes 30 MB, and 20 MB are allowed.*--max-mb", limit_mb=20.0)
    bring(path, other, limit_mb=31.0)


def test_a_member_that_unpacks_to_more_than_it_declares_is_refused(bundle, other, tmp_path):
    path = pack(tmp_path / "x.zip", members_of(bundle) | {"inputs/zeros": bytes(30_000_000)})
    data = bytearray(path.read_bytes())
    declared, claimed = (30_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    data = data.replace(declared, claimed)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = json.loads(archive.read(MANIFEST))["members"]
    members["inputs/zeros"] = {"size": 1000, "sha256": hashlib.sha256(bytes(1000)).hexdigest()}
    path = pack(path, members_of(bundle) | {"inputs/zeros": bytes(30_000_000)}, manifest={"members": members})
    path.write_bytes(path.read_bytes().replace(declared, claimed))
    refused(path, other, "damaged|not what the manifest says")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"format": 2}, "format 2; this version of infertune reads format 1"),
        ({"session": "../s1"}, "no name of a session"),
        ({"session": "s2"}, "is said to hold session s2"),
        ({"members": 3}, "cannot be understood"),
        ({"more": 1}, "cannot be understood"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(bundle, other, tmp_path, manifest, message):
    refused(pack(tmp_path / "x.zip", members_of(bundle), manifest=manifest), other, message)


def test_evidence_that_was_changed_is_refused(bundle, other, tmp_path):
    members = members_of(bundle)
    for change in (
        members[FINDINGS].replace(b"14.2", b"11.2"),
        b"",
        members[FINDINGS] + members[FINDINGS],
        members[FINDINGS] + finding("more").body.encode() + b"\n",
        members[FINDINGS].removesuffix(b"\n"),
    ):
        refused(pack(tmp_path / "x.zip", members | {FINDINGS: change}), other, "the evidence in it is not")
    refused(pack(tmp_path / "x.zip", members | {FINDINGS: b"{}\n"}), other, "no finding")


@pytest.mark.parametrize("change", [b"{}\n", b"", b"\xff\n"])
def test_a_journal_that_cannot_be_read_is_refused(bundle, other, tmp_path, change):
    refused(pack(tmp_path / "x.zip", members_of(bundle) | {JOURNAL: change}), other, "its journal cannot be used")


def test_a_result_that_is_none_is_refused(bundle, other, tmp_path):
    refused(pack(tmp_path / "x.zip", members_of(bundle) | {"result.json": b"{}"}), other, "no result of this version")


@pytest.mark.parametrize("missing", [JOURNAL, FINDINGS, "inputs/traffic.csv"])
def test_a_bundle_that_lacks_a_part_is_refused(bundle, other, tmp_path, missing):
    members = members_of(bundle)
    del members[missing]
    refused(pack(tmp_path / "x.zip", members), other, "lacks|is not in it")


def test_raw_files_that_no_evidence_names_are_refused(bundle, other, tmp_path):
    path = pack(tmp_path / "x.zip", members_of(bundle) | {"raw/q7-zz.npz": b"x"})
    refused(path, other, "the raw files in it are not those")


@pytest.mark.parametrize("raw", ["../../../etc/passwd", "../evidence.db", "/etc/x.npz", "a/b.npz"])
def test_evidence_cannot_point_outside_of_the_home(bundle, other, tmp_path, raw):
    evil = finding("q", raw=raw)
    journal = Journal(tmp_path / JOURNAL)
    journal.append("started", started("s1").model_dump(mode="json"))
    journal.append("evidence", {"id": evil.id, "question": evil.question, "kind": "trial", "recipe": "r"})
    members = members_of(bundle) | {JOURNAL: journal.path.read_bytes(), FINDINGS: evil.body.encode() + b"\n"}
    del members[RAW]
    refused(pack(tmp_path / "x.zip", members), other, "the raw files in it are not those")


@pytest.mark.parametrize("trace", ["/etc/passwd", "inputs/../../../elsewhere.csv", "journal.jsonl/../../x"])
def test_a_journal_cannot_have_files_read_from_elsewhere(bundle, other, tmp_path, trace):
    journal = Journal(tmp_path / JOURNAL)
    journal.append("started", started("s1").model_dump(mode="json"))
    journal.append("loaded", loaded(traffic=TrafficSpec(trace=trace)).model_dump(mode="json"))
    members = members_of(bundle) | {JOURNAL: journal.path.read_bytes(), FINDINGS: b""}
    del members[RAW]
    refused(pack(tmp_path / "x.zip", members), other, "the traffic .* is not in it")


def test_files_that_are_no_bundles_are_said(other, tmp_path, bundle):
    refused(tmp_path / "nowhere.zip", other, r"nowhere\.zip: cannot be read \(No such file")
    (tmp_path / "text.zip").write_text("hello")
    refused(tmp_path / "text.zip", other, "is no bundle, or is damaged")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    refused(tmp_path / "empty.zip", other, "it has no manifest")
    refused(tmp_path, other, "cannot be read")


def test_a_bundle_that_was_damaged_anywhere_is_refused(bundle, other, tmp_path):
    whole = bundle.read_bytes()
    for place in range(0, len(whole), 97):
        (tmp_path / "x.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            bring(tmp_path / "x.zip", other)
        except BundleError:
            continue
        assert len(read_record(other / "sessions" / "s1").evidence) == 2  # a byte that means nothing, such as a time
    for length in range(0, len(whole), 997):
        (tmp_path / "x.zip").write_bytes(whole[:length])
        with pytest.raises(BundleError):
            bring(tmp_path / "x.zip", other)


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}]
from pathlib import Path
from tools import unbundle
from tools.evidence import EvidenceStore
left = int(sys.argv[3])
def dying(function):
    def step(*arguments, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **named)
    return step
Path.rename, EvidenceStore.put_all = dying(Path.rename), dying(EvidenceStore.put_all)
unbundle.import_bundle(Path(sys.argv[1]), Path(sys.argv[2]), limit_mb=100.0)
"""


def test_killed_at_any_step_it_leaves_no_session_that_lacks_evidence_and_the_next_import_finishes(
    bundle, tmp_path, home
):
    ends = []
    for steps in range(7):  # rename: raw file, then journal, inputs, report, folder; between the first two the rows
        target = tmp_path / str(steps)
        code = KILLED.format(root=str(REPOSITORY))
        done = subprocess.run([sys.executable, "-c", code, bundle, target, str(steps)], check=False)
        ends.append(done.returncode)
        for folder in target.glob("sessions/[!.]*"):
            ids = read_record(folder).evidence
            assert len(EvidenceStore(target / EVIDENCE).get_all(ids)) == len(ids)
            assert (target / RAW).is_file()
        bring(bundle, target)
        assert set(everything_in(target)) >= {n for n in everything_in(home) if "logs" not in n}
    assert ends == [-signal.SIGKILL] * 6 + [0]


def test_a_disk_that_fills_while_exporting_leaves_no_file(home, tmp_path):
    fill = (
        f"import resource, signal, sys; sys.path[:0] = [{str(REPOSITORY)!r}]\n"
        "from pathlib import Path; from tools.bundle import collect, write; from tools.errors import StorageError\n"
        "contents = collect(Path(sys.argv[1]))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write(contents, Path(sys.argv[2]))\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", fill, home / "sessions" / "s1", tmp_path / "x.zip"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written (File too large)" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]


def test_a_real_session_can_be_replayed_and_questioned_in_another_home(commands, capsys, monkeypatch, tmp_path):
    commands.install(monkeypatch)
    quicken(("eager", "torchscript"), monkeypatch.setattr)
    monkeypatch.setattr("tools.mirror.RECORD_LIMIT_S", 0.01)
    limits = functools.partial(agent.loading.BenchLimits, screen_point_s=0.3, sweep_point_s=0.3)
    monkeypatch.setattr(agent.loading, "BenchLimits", limits)
    sections = {"traffic": with_traffic(tmp_path)["traffic"]}
    commands.run(capsys, monkeypatch, "optimize", write_spec(tmp_path, **sections), "--home", tmp_path / "home")
    (folder,) = (tmp_path / "home" / "sessions").iterdir()
    write(collect(folder), tmp_path / "x.zip")
    there = what_if(folder, {"p99_ms": "0.001"})
    (tmp_path / "home").rename(tmp_path / "moved")
    from_file = commands.run(capsys, monkeypatch, "replay", tmp_path / "x.zip", "--home", tmp_path / "unused")
    assert (from_file.exit_code, (tmp_path / "unused").exists()) == (0, False)
    assert "all the same" in from_file.out
    done = bring(tmp_path / "x.zip", tmp_path / "other")
    here = replay(done.folder)
    assert here.same
    assert here.checked > 5
    assert here.scaling is not None
    moved = there.model_dump_json().replace(str(folder), str(done.folder))
    assert what_if(done.folder, {"p99_ms": "0.001"}).model_dump_json() == moved
    assert len(explain(done.folder, None).decisions) == here.checked
    assert not (tmp_path / "other" / "artifacts").exists()
