"""Joining a real coordinator over real TLS: what works once, and what each wrong token gets."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from coordinator import server
from silos.client import CoordinatorClient, connect
from silos.config import Home, init_home
from silos.enrol import join, parse_token, renew
from silos.errors import ConfigError, CoordinatorRefused, CoordinatorUnreachable, EnrolError
from silos.node import Node
from silos.tls import client_context, finish_renewal, lifetime_left
from tests.silos.world import coordinator_world


async def test_a_silo_joins_and_everybody_sees_its_key(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        fingerprint = await world.enrol("lender")
        async with connect(world.home("lender")) as client:
            (silo,) = await client.roster()
            assert (silo["silo"], silo["fingerprint"]) == ("lender", fingerprint)
            assert await client.jobs() == []
            assert len(await client.log_entries(0, 1)) == 1
        for private in ("tls.key", "identity.key"):
            assert (world.root / "lender" / private).stat().st_mode & 0o077 == 0


async def test_each_wrong_token_gets_its_sentence(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        home = Home(tmp_path / "platform")
        init_home(home.root, "platform")

        async def refused(token: str, sentence: str, url: str = world.url) -> None:
            with pytest.raises((EnrolError, CoordinatorRefused, CoordinatorUnreachable), match=sentence):
                await join(home, url, token)
            assert not home.coordinator.exists()
            assert not home.tls_key.exists()

        good = world.token("platform")
        pin, rest = good[4:68], good[68:]
        await refused("nonsense", "this is not a join token")
        await refused(good, "is not a coordinator's address", "http://127.0.0.1")
        await refused(good, "does not answer", "https://127.0.0.1:9")
        other = "0" * 64 if pin != "0" * 64 else "1" * 64
        await refused(
            f"SJ1.{other}{rest}", "is not the coordinator that made this token: its authority has another key"
        )
        await refused(good[:-1] + ("A" if good[-1] != "A" else "B"), "^the join token is wrong$")
        await refused(world.token("hospital"), "^the token is for 'hospital', the entry speaks for 'platform'$")
        expired = world.token("platform", ttl_s=0)
        await refused(expired, "^the join token has expired$")
        await join(home, world.url, good)
        with pytest.raises(CoordinatorRefused, match=r"^the join token has been used already$"):
            await join(home, world.url, good)


async def test_a_name_changes_hands_only_if_the_operator_says_so(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        usurper = Home(tmp_path / "usurper")
        init_home(usurper.root, "lender")
        with pytest.raises(CoordinatorRefused, match="'lender' is enrolled already"):
            await join(usurper, world.url, world.token("lender"))
        await join(usurper, world.url, world.token("lender", allow_replace=True))
        async with connect(world.home("lender")) as client:
            with pytest.raises(CoordinatorRefused):
                await client.jobs()


async def test_a_coordinator_behind_another_authority_is_not_ours(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        (tmp_path / "b").mkdir()
        async with coordinator_world(tmp_path / "b") as other:
            await world.enrol("lender")
            context = client_context(world.home("lender").ca.read_text())
            async with CoordinatorClient(other.url, context) as client:
                with pytest.raises(CoordinatorUnreachable, match="is not our coordinator: its certificate is wrong"):
                    await client.ca()


async def test_without_a_certificate_nothing_but_enrolment(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        context = client_context(world.home("lender").ca.read_text())
        async with CoordinatorClient(world.url, context) as client:
            with pytest.raises(CoordinatorRefused) as caught:
                await client.roster()
            assert caught.value.status in (401, 403)


async def test_a_node_that_is_not_enrolled_or_was_revoked_stops_with_a_sentence(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        init_home(tmp_path / "platform", "platform")
        with pytest.raises(ConfigError, match="has not joined a coordinator"):
            await Node(world.home("platform")).run(asyncio.Event())
        await world.enrol("lender")
        server.revoke(world.coordinator, "lender")
        with pytest.raises(CoordinatorRefused):
            await Node(world.home("lender")).run(asyncio.Event())


async def test_renewal_replaces_key_and_certificate_and_the_old_ones_are_dead(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        home = world.home("lender")
        before = home.tls_certificate.read_bytes(), home.tls_key.read_bytes()
        now = dt.datetime.now(dt.UTC)
        assert 0.9 < lifetime_left(before[0], now) <= 1
        assert lifetime_left(before[0], now + dt.timedelta(days=400)) < 0
        async with connect(home) as client:
            await client.jobs()
            await renew(home)
            assert home.tls_certificate.read_bytes() != before[0]
            with pytest.raises(CoordinatorRefused):
                await client.jobs()
        async with connect(home) as client:
            await client.jobs()


@pytest.mark.parametrize("cut", ["before the certificate came", "before anything was replaced", "between the two"])
async def test_a_renewal_cut_off_anywhere_leaves_a_pair_that_fits(tmp_path: Path, cut: str) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        home = world.home("lender")
        old_key, old_certificate = home.tls_key.read_bytes(), home.tls_certificate.read_bytes()
        await renew(home)
        new_key, new_certificate = home.tls_key.read_bytes(), home.tls_certificate.read_bytes()
        home.tls_key.write_bytes(old_key)
        home.tls_certificate.write_bytes(new_certificate if cut == "between the two" else old_certificate)
        (home.root / "tls.key.next").write_bytes(new_key)
        if cut == "before anything was replaced":
            (home.root / "tls.pem.next").write_bytes(new_certificate)
        finish_renewal(home)
        kept = old_key if cut == "before the certificate came" else new_key
        assert home.tls_key.read_bytes() == kept
        client_context(home.ca.read_text(), home.tls_key, home.tls_certificate)  # raises if they do not fit
        assert not list(home.root.glob("*.next"))


def test_a_token_never_shows_its_secret() -> None:
    token = parse_token("SJ1." + "a" * 64 + ".0123456789abcdef." + "s" * 43)
    assert "sss" not in repr(token)
