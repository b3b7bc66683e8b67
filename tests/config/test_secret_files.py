"""Which files a configuration refers to as secrets: a change of one is a change of the configuration."""

from __future__ import annotations

from pathlib import Path

from approvals_bot.config.secret import secret_files


def test_the_files_of_secrets_are_found_wherever_they_are_named(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[server]\nsigning_keys = ["file:one", "env:TWO"]\n[api_keys]\n'
        'ci = { key = ["file:keys/ci", "file:/etc/ci"] }\n'
        '[channels.chat]\nsecret = "file:chat"\n'
    )
    assert secret_files(config) == [tmp_path / "one", tmp_path / "keys/ci", Path("/etc/ci"), tmp_path / "chat"]


def test_a_configuration_that_cannot_be_read_names_none(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server\n")
    assert secret_files(tmp_path / "config.toml") == []
    assert secret_files(tmp_path / "absent.toml") == []
