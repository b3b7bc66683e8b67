"""What `doctor` says about secrets: keys that could be guessed, and files that others can read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from approvals_bot.approvals.port import Diagnosis
from approvals_bot.config.secret import secret_files
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.core.private_files import is_open_to_others

FEW_CHARACTERS = 12  # different ones in a key; a random key of 32 bytes has about 20
SHORTEST_SLACK_SECRET = 32  # characters; Slack's own have 32 hexadecimal digits
SHORTEST_HMAC_SECRET = 24  # bytes, as the specification of Standard Webhooks asks for

GENERATE = "Generate one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"


def check_secrets(service: ServiceSettings, config: Path) -> Iterator[Diagnosis]:
    """Yield what is wrong with the secrets, and how many signing keys there are."""
    yield from _check_signing_keys(service)
    yield from _check_shared_secrets(service)
    yield from _check_files(service, config)


def _check_signing_keys(service: ServiceSettings) -> Iterator[Diagnosis]:
    keys = [key.get_secret_value() for key in service.server.signing_keys]
    for number, key in enumerate(keys, 1):
        if len(set(key)) < FEW_CHARACTERS:
            yield Diagnosis("WARN", "signing keys", f"key {number} doesn't look random", GENERATE)
    if len(set(keys)) < len(keys):
        yield Diagnosis("WARN", "signing keys", "the same key is listed twice", "Remove the second one.")
    yield Diagnosis("OK", "signing keys", f"{len(keys)}; the first one signs, all are accepted")


def _check_shared_secrets(service: ServiceSettings) -> Iterator[Diagnosis]:
    """Look at the secrets that others sign with, or that we sign with for them."""
    if service.slack is not None and (secret := service.slack.signing_secret) is not None:
        length = len(secret.get_secret_value())
        if length < SHORTEST_SLACK_SECRET:
            what = f"that of [slack] has {length} characters, so somebody could guess it and press buttons as anybody"
            yield Diagnosis("WARN", "secrets", what, "Copy the app's Signing Secret from api.slack.com/apps.")
    for name, target in service.http.items():
        size = None if target.secret is None else len(target.secret.get_secret_value().encode())
        if size is not None and size < SHORTEST_HMAC_SECRET:
            what = f"that of [http.{name}] has {size} bytes, so somebody could guess it and call the target as we do"
            yield Diagnosis("WARN", "secrets", what, GENERATE)


def _check_files(service: ServiceSettings, config: Path) -> Iterator[Diagnosis]:
    url = service.server.database.get_secret_value()
    database = url.removeprefix("sqlite:///")
    beside = ("", "-wal", "-shm") if database != url else ()
    for path in (*(Path(database + end) for end in beside), *secret_files(config)):
        if is_open_to_others(path):
            what = f"other users of this machine can read {path}"
            yield Diagnosis("WARN", "files", what, f"chmod o= {path}")
