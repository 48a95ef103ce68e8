"""A silo whose only way out is an HTTP proxy: it joins and works through it, connects nowhere else, and tells no password."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from silos.client import connect
from silos.config import Home, init_home
from silos.enrol import join
from silos.errors import ConfigError, CoordinatorUnreachable
from tests.silos.connect_proxy import PASSWORD, connect_proxy
from tests.silos.world import coordinator_world

SILO = """
import asyncio, json, sys
from pathlib import Path
met = []
sys.addaudithook(lambda event, args: met.append(args[1]) if event == "socket.connect" else None)
from aiohttp import ClientError
from silos.client import connect
from silos.config import Home
from silos.enrol import join
from silos.node import Node

async def main(home, url, token):
    await join(home, url, token)
    async with connect(home) as client:
        assert [one["silo"] for one in await client.roster()] == ["lender"]
        try:
            await client.relay("0f" * 16, "platform")
        except ClientError as exc:
            assert exc.status == 404
        else:
            raise AssertionError("there is no such job")
    stop = asyncio.Event()
    node = asyncio.create_task(Node(home).run(stop))
    while not (home.state / "checkpoint").exists():
        assert not node.done(), node.result()
        await asyncio.sleep(0.05)
    stop.set()
    await node

asyncio.run(main(Home(Path(sys.argv[1])), sys.argv[2], sys.argv[3]))
print(json.dumps(met))
"""


def with_proxy(home: Path, url: str) -> None:
    path = home / "silo.toml"
    path.write_text(path.read_text().replace("[limits]", f'proxy = "{url}"\n\n[limits]'))


async def test_everything_goes_through_the_proxy_and_nothing_anywhere_else(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world, connect_proxy() as proxy:
        home = tmp_path / "outbound"
        init_home(home, "lender")
        with_proxy(home, proxy.url())
        token = world.token("lender")
        silo = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SILO,
            home,
            world.url,
            token,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, errors = await asyncio.wait_for(silo.communicate(), 120)
        assert silo.returncode == 0, errors.decode()
        addresses = {tuple(address) for address in json.loads(said) if isinstance(address, list)}
        assert addresses == {("127.0.0.1", proxy.port)}
        assert set(proxy.asked) == {world.url.removeprefix("https://")}
        assert PASSWORD not in errors.decode()


async def test_what_a_proxy_does_wrong_is_said_without_the_password(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world, connect_proxy() as proxy:
        home = tmp_path / "outbound"
        init_home(home, "lender")
        with_proxy(home, proxy.url())
        await join(Home(home), world.url, world.token("lender"))
        text = (home / "silo.toml").read_text()
        (home / "silo.toml").write_text(text.replace(PASSWORD, "canary-wrong"))
        async with connect(Home(home)) as client:
            with pytest.raises(CoordinatorUnreachable) as caught:
                await client.jobs()
        place = f"the proxy 127.0.0.1:{proxy.port}"
        assert str(caught.value) == f"{place} refuses to connect to {world.url} (status 407)"
        assert proxy.refused
        (home / "silo.toml").write_text(text.replace(str(proxy.port), "1"))
        async with connect(Home(home)) as client:
            with pytest.raises(CoordinatorUnreachable, match=r"^the proxy 127\.0\.0\.1:1 does not answer$"):
                await client.jobs()


@pytest.mark.parametrize(
    "url", ["https://u:canary@proxy:1", "http://u:canary@proxy", "socks5://canary:1", "canary", "http://a b:1"]
)
def test_a_proxy_of_another_form_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    init_home(tmp_path / "home", "lender")
    with_proxy(tmp_path / "home", url)
    with pytest.raises(ConfigError) as caught:
        Home(tmp_path / "home").load_config()
    sentence = "'proxy' must have the form http://host:port or http://user:password@host:port"
    assert str(caught.value) == f"the configuration {tmp_path}/home/silo.toml: {sentence}"


def test_the_proxy_is_not_in_what_a_configuration_shows_of_itself(tmp_path: Path) -> None:
    init_home(tmp_path / "home", "lender")
    with_proxy(tmp_path / "home", "http://u:canary@proxy:3128")
    config = Home(tmp_path / "home").load_config()
    assert config.proxy == "http://u:canary@proxy:3128"
    assert "canary" not in repr(config)
