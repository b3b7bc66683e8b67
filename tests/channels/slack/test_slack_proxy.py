"""Slack behind a company's proxy: each call and the websocket go through it, and it alone knows Slack's name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from approvals_bot.channels.slack.channel import make
from approvals_bot.channels.slack.client import slack_client
from approvals_bot.channels.slack.socket_mode import socket_mode
from approvals_bot.config.load import load_service
from approvals_bot.config.service import Slack
from approvals_bot.errors import ConfigError
from approvals_bot.playground import SeedApp
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, run_fake_slack
from tests.support.web_proxy import web_proxy

HERE = "http://slack.example/playground/slack/api/"


async def test_calls_and_the_websocket_go_through_the_proxy() -> None:
    async with run_fake_slack(app=SeedApp(BOT_TOKEN, SIGNING_SECRET, "xapp-1")) as fake:
        port, socket = int(fake.url.rpartition(":")[2]), fake.playground.socket_mode.port
        async with (
            web_proxy({"slack.example:80": port, f"127.0.0.1:{socket}": socket}) as proxy,
            slack_client(token=BOT_TOKEN, api_url=HERE, proxy=proxy.url) as client,
        ):
            assert (await client.ask("auth.test"))["ok"]
            assert (await client.web.auth_test())["ok"]
            assert proxy.seen == ["POST slack.example:80"] * 2
            bolt = AsyncApp(client=AsyncWebClient(token=BOT_TOKEN, base_url=HERE, session=client.session))
            async with socket_mode(bolt, app_token="xapp-1", client=client) as connection:
                async with asyncio.timeout(60):
                    while not await connection.is_connected():
                        await asyncio.sleep(0.01)
            assert f"GET 127.0.0.1:{socket}" in proxy.seen  # the websocket, where Slack said


async def test_the_configured_proxy_is_the_channels() -> None:
    settings = Slack(
        bot_token=SecretStr(BOT_TOKEN), signing_secret=SecretStr("s" * 32), api_url=HERE, proxy=SecretStr("http://p:1")
    )
    channel = make(settings)
    assert channel._client.proxy == "http://p:1"
    await channel.aclose()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("http://proxy.acme.eu:3128", ""),
        ("env:PROXY", ""),
        ("http://bot:pass@proxy.acme.eu:3128", "passwords don't belong in this file"),
        ("proxy.acme.eu:3128", "write a proxy like"),
        ("socks5://proxy.acme.eu", "write a proxy like"),
        ("http://proxy.acme.eu/path", "write a proxy like"),
    ],
)
def test_a_proxy_with_a_password_is_a_secret(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "config.toml").write_text(f"""
[server]
base_url = "http://127.0.0.1:8000"
signing_keys = ["env:KEY"]
proxy = "{written}"
no_proxy = [".acme.eu", "hr.example"]
[slack]
bot_token = "env:KEY"
app_token = "env:KEY"
proxy = "{written}"
""")
    env = {"KEY": "k" * 40, "PROXY": "http://bot:pass@proxy.acme.eu:3128"}
    if not said:
        loaded = load_service(tmp_path / "config.toml", env)
        assert "bot:pass" not in repr(loaded) + loaded.model_dump_json()
        return
    with pytest.raises(ConfigError) as caught:
        load_service(tmp_path / "config.toml", env)
    assert str(caught.value).count(said) == 2
    assert "bot:pass" not in str(caught.value)
