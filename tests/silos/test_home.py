"""Files of a silo's home: identity, configuration, results."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from coordinator.envelope import canonical
from silos.config import Home, init_home
from silos.errors import ConfigError
from silos.identity import create_identity, load_identity
from silos.results import read_result, result_digest, write_result
from tests.silos.world import JOB


def test_the_identity_key_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    identity = create_identity(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_identity(path).public == identity.public
    assert repr(identity) == f"Identity({identity.fingerprint})"
    with pytest.raises(ConfigError, match="already holds an identity key"):
        create_identity(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by other users; run 'chmod 600"):
        load_identity(path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match="is not a private key"):
        load_identity(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_identity(tmp_path / "none")


def test_a_home_is_made_once_and_for_a_good_name(tmp_path: Path) -> None:
    root = tmp_path / "lender"
    for bad in ("Lender", "x", "coordinator", "a b"):
        with pytest.raises(ConfigError):
            init_home(root, bad)
    assert not root.exists()
    init_home(root, "lender")
    assert Home(root).load_config().name == "lender"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    with pytest.raises(ConfigError, match=r"a silo lives in .* already"):
        init_home(root, "lender")
    with pytest.raises(ConfigError, match="has not joined a coordinator"):
        Home(root).load_enrolment()
    with pytest.raises(ConfigError, match="is not a silo's home"):
        Home(tmp_path).load_config()


@pytest.mark.parametrize("job", ["", "../x", "0123", JOB.upper(), JOB + "/"])
def test_a_job_id_is_never_a_path(tmp_path: Path, job: str) -> None:
    with pytest.raises(ConfigError, match="is not a job id"):
        Home(tmp_path).job(job)
    with pytest.raises(ConfigError, match="is not a job id"):
        Home(tmp_path).result(job)


def test_a_result_matches_its_digest(tmp_path: Path) -> None:
    result, salt = {"auc": "0.7712", "counts": {"aligned": 3}}, "0f" * 16
    expected = hashlib.sha256(bytes.fromhex(salt) + canonical(result)).hexdigest()
    assert result_digest(salt, result) == expected
    path = Home(tmp_path).result(JOB)
    write_result(path, job=JOB, silo="lender", spec_digest="a" * 64, salt=salt, result=result)
    stored = read_result(path)
    assert result_digest(stored["salt"], stored["result"]) == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert result_digest("0e" * 16, result) != expected
    with pytest.raises(ValueError, match="at least 16 bytes"):
        result_digest("", result)


def test_a_result_that_is_missing_or_damaged(tmp_path: Path) -> None:
    path = Home(tmp_path).result(JOB)
    with pytest.raises(ConfigError, match=f"there is no result of job {JOB} here"):
        read_result(path)
    path.parent.mkdir()
    for text in ("", "[]", "{}", '"x"', '{"salt": "00"}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is damaged"):
            read_result(path)
