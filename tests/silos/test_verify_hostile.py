"""silos/verify.py on files that were made to hurt it, and as a program of its own."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silos import verify
from silos.verify import main, verify_bundle
from tests.silos import bundles
from tests.silos.bundles import FILES, JOB, LOG, PARTICIPANTS, pin_of, refused, vkey, with_entry, write, zipped

HONEST = zipped(FILES)
OTHER = f"jobs/{bundles.OTHER_JOB}"
SOURCE = Path(verify.__file__)

# --- zip files ---


def with_member(name: str, data: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO(HONEST)
    with zipfile.ZipFile(buffer, "a", compression) as archive:
        archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "../manifest.json",
        "/checkpoint",
        "jobs/../checkpoint",
        "jobs/",
        f"jobs\\{JOB}",
        f"jobs/{JOB[1:]}",
        f"jobs/{JOB}.bak",
        f"jobs/{JOB[1:]}٨",
        "Manifest.json",
        "",
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, name: str) -> None:
    refused(verify_bundle(write(tmp_path, with_member(name, b"{}"))), "a file .* that the format does not know")


def test_a_name_with_a_null_byte_is_refused(tmp_path: Path) -> None:
    data = with_member("manifest.json_.txt", b"{}").replace(b"manifest.json_.txt", b"manifest.json\0.txt")
    refused(verify_bundle(write(tmp_path, data)), "a file .* that the format does not know")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["checkpoint", f"jobs/{JOB}"])
def test_a_name_twice_is_refused(tmp_path: Path, name: str) -> None:
    refused(verify_bundle(write(tmp_path, with_member(name, FILES[name]))), f"^{name}: the bundle has it twice$")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    bomb = with_member(OTHER, b"\0" * (64 << 20))
    assert len(bomb) < 200_000
    refused(verify_bundle(write(tmp_path, bomb)), f"^{OTHER}: it has more than 16777216 bytes$")


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    bomb = bytearray(with_member(OTHER, b"\0" * (8 << 20)))
    start = bomb.rindex(b"PK\1\2")
    struct.pack_into("<I", bomb, start + 24, 100)  # the directory says: 100 bytes when unpacked
    refused(verify_bundle(write(tmp_path, bytes(bomb))), "is not a whole zip file: Bad CRC-32 for file 'jobs/1e")


def test_oversize_bundles_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    refused(verify_bundle(path), "^bundle.zip has more than 2147483648 bytes$")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_JOBS", 20)
    crowd = {f"jobs/{n:032x}": b"" for n in range(21)}
    refused(verify_bundle(write(tmp_path, {**FILES, **crowd})), "^the bundle has more than 20 jobs$")
    huge = {f"jobs/{n:032x}": b"" for n in range(200)}
    refused(verify_bundle(write(tmp_path, huge)), "^bundle.zip is not a whole bundle$")


def test_files_that_unpack_to_too_much_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_BUNDLE_BYTES", 1 << 16)
    refused(
        verify_bundle(write(tmp_path, with_member(OTHER, bytes(1 << 16)))), "with it the bundle has more than 65536"
    )


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(tmp_path: Path, compression: int) -> None:
    refused(
        verify_bundle(write(tmp_path, with_member(OTHER, b"x" * 99, compression))),
        f"^{OTHER}: it is encrypted or oddly packed$",
    )


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(HONEST)
    data[data.index(b"PK\1\2") + 8] |= 1
    refused(verify_bundle(write(tmp_path, bytes(data))), "it is encrypted or oddly packed")


@pytest.mark.parametrize("tail", [b"\0", b"trailing", b"PK\5\6"])
def test_trailing_bytes_are_refused(tmp_path: Path, tail: bytes) -> None:
    refused(verify_bundle(write(tmp_path, HONEST + tail)), "is not a whole bundle")


def test_truncated_bundles_are_refused(tmp_path: Path) -> None:
    for length in (*range(0, len(HONEST), 997), *range(len(HONEST) - 40, len(HONEST))):
        refused(verify_bundle(write(tmp_path, HONEST[:length])), "^bundle.zip is not a whole bundle$")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    files = {n: d for n, d in FILES.items() if n != name}
    sentence = f"^{name} is missing$" if not name.startswith("jobs/") else "^the bundle has no job$"
    refused(verify_bundle(write(tmp_path, files)), sentence)


def test_a_bundle_of_no_job_proves_nothing(tmp_path: Path) -> None:
    refused(verify_bundle(write(tmp_path, LOG.members({}, [], set(), set()))), "^the bundle has no job$")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"8 ", "line 14 is no entry of the log, or out of order"),
        (b"08 {}", "line 14 is no entry of the log, or out of order"),
        (b"-1 {}", "line 14 is no entry of the log, or out of order"),
        (b"8 {}", "line 14 is no entry of the log, or out of order"),
        (b"20 {}", "line 14 is no entry of the log, or out of order"),
        (b"9999999999999999 {}", "line 14 is no entry of the log, or out of order"),
        (b"21 " + b"x" * 65_536, "line 14 is no entry of the log, or out of order"),
        ("٢١ {}".encode(), "line 14 is no entry of the log, or out of order"),
        (b"", "line 14 is no entry of the log, or out of order"),
    ],
)
def test_lines_that_are_no_entries_are_refused(tmp_path: Path, line: bytes, sentence: str) -> None:
    name = f"jobs/{JOB}"
    report = verify_bundle(write(tmp_path, {**FILES, name: FILES[name] + line + b"\n"}))
    refused(report, f"^{name}: {sentence}$")


def test_an_entry_in_two_files_is_refused(tmp_path: Path) -> None:
    refused(
        verify_bundle(write(tmp_path, {**FILES, OTHER: FILES[f"jobs/{JOB}"]})), "it is about another|its spec is of job"
    )


def test_things_that_are_no_files(tmp_path: Path) -> None:
    refused(verify_bundle(tmp_path), "cannot be read: Is a directory")
    refused(verify_bundle(tmp_path / "absent.zip"), "^absent.zip cannot be read: No such file")


NASTY: dict[str, bytes] = {
    "deep": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "long number": b"1" * 60_000,
    "fraction": b'{"hashes":[1.5],"index":8,"size":21}',
    "not a number": b"NaN",
    "surrogate": b'"\\ud800"',
    "utf-16": '{"v":1}'.encode("utf-16"),
    "null": b"null",
    "list": b"[]",
    "empty": b"",
    "binary": bytes(range(256)),
    "repeated key": b'{"hashes":[],"hashes":[],"index":8,"size":21}',
    "types": b'{"payload":1,"payloadType":null,"signatures":{"keyid":[]}}',
    "no signers": b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[]}',
}


@pytest.mark.parametrize("what", NASTY)
def test_nasty_contents_are_refused_in_every_file(tmp_path: Path, what: str) -> None:
    nasty = dict.fromkeys(("manifest.json", "checkpoint", "log.vkey", "hashes", "roster", f"jobs/{JOB}"), NASTY[what])
    for name, content in nasty.items():
        report = verify_bundle(write(tmp_path, {**FILES, name: content}))
        assert not report.ok
        assert report.reason
    if b"\n" not in NASTY[what]:
        for index in (LOG.index("lender", "enrolled"), LOG.index("lender", "consented")):
            report = verify_bundle(write(tmp_path, with_entry(FILES, index, NASTY[what])))
            refused(
                report, rf"^entry {index}: it is not what the format has here$|^(roster|jobs/\w+): line \d+ is no entry"
            )
            payload = bundles.b64(NASTY[what])
            hidden = b'{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"lender","sig":""}]}'
            report = verify_bundle(write(tmp_path, with_entry(FILES, index, hidden % payload.encode())))
            refused(
                report, rf"^entry {index}: it is not what the format has here$|^(roster|jobs/\w+): line \d+ is no entry"
            )


@given(st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(1, 255)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_corruption_of_the_zip_never_raises(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(HONEST)
    for position, mask in changes:
        data[position] ^= mask
    report = verify_bundle(write(tmp_path, bytes(data)))
    if report.ok:  # only what surrounds the files changed, such as their dates
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert {i.filename: archive.read(i) for i in archive.infolist()} == FILES


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_corruption_of_a_file_is_refused(tmp_path: Path, name: str, data: st.DataObject) -> None:
    old = FILES[name]
    start = data.draw(st.integers(0, len(old)))
    end = data.draw(st.integers(start, min(len(old), start + 30)))
    new = old[:start] + data.draw(st.binary(max_size=30)) + old[end:]
    assert verify_bundle(write(tmp_path, {**FILES, name: new})).ok == (new == old)


# --- the program ---


def test_the_command_line_ends_with_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, FILES)
    pins = [f"--pin={silo}={pin_of(silo).upper()}" for silo in PARTICIPANTS]
    assert main([str(path), "--log-key", vkey(), *pins]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "bundle verified"
    assert "lender learns which of its customers matched" in lines
    index = LOG.index("lender", "started")
    assert f"ok    entry {index}: 'started' by lender at 2026-03-01T10:05:00Z" in lines

    write(tmp_path, with_entry(FILES, index, b"{}"))
    assert main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"bundle REFUSED: entry {index}: it is not what the format has here"
    assert f"FAIL  entry {index}: entry {index}: it is not what the format has here" in lines


def test_json_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, FILES)
    assert main([str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["reason"], report["summaries"][0]["state"]) == (True, "", "done")
    write(tmp_path, b"")
    assert main([str(path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["summaries"]) == (False, [])
    assert report["checks"] == [{"name": "zip file", "ok": False, "detail": "bundle.zip is not a whole bundle"}]


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "b"], ["a", "--pin", "lender"], ["a", "--pin", "lender=12"], ["a", "--pin", f"Lender={'0' * 64}"]],
)
def test_a_wrong_command_line_is_no_verdict(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_nothing_from_a_bundle_controls_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write(tmp_path, with_member("\x1b[2Jbundle verified\n", b"")))])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.splitlines()[-1].startswith("bundle REFUSED: ")


GUARD = """
import runpy, socket, sys

allowed = sys.stdlib_module_names | {"cryptography", "cffi", "_cffi_backend", "typing_extensions"}

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} is not there")

def refuse(*_, **__):
    raise AssertionError("opens a socket")

sys.meta_path.insert(0, Guard())
socket.socket.__init__ = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(tmp_path: Path, bundle: Path, prepare: Callable[[Path], list[str]]) -> subprocess.CompletedProcess[str]:
    copy = tmp_path / "elsewhere" / "verify.py"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(SOURCE, copy)
    command = [sys.executable, "-I", *prepare(copy), str(bundle), "--log-key", vkey()]
    return subprocess.run(command, cwd=copy.parent, env={}, capture_output=True, text=True, timeout=60, check=False)


def guarded(copy: Path) -> list[str]:
    guard = copy.with_name("guard.py")
    guard.write_text(GUARD, encoding="utf-8")
    return [str(guard), str(copy)]


@pytest.mark.parametrize("prepare", [guarded, lambda copy: [str(copy)]], ids=["guarded", "plain"])
def test_a_copy_runs_elsewhere_with_cryptography_only(tmp_path: Path, prepare: Callable[[Path], list[str]]) -> None:
    done = alone(tmp_path, write(tmp_path, FILES), prepare)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nbundle verified\n")
    done = alone(tmp_path, write(tmp_path, HONEST[:-1]), prepare)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("bundle REFUSED: bundle.zip is not a whole bundle\n")
