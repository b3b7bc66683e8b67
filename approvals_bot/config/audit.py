"""`[audit]`: the key of the audit's chain and signatures, and where its anchors go."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo, model_validator

from approvals_bot.approvals.base import Frozen, Slug, refuse
from approvals_bot.approvals.durations import Duration
from approvals_bot.config.secret import Secret

SIGNS_WITH = "cryptography"


def _audit_key(value: SecretStr) -> SecretStr:
    if re.fullmatch(r"[0-9a-fA-F]{64}", value.get_secret_value()) is None:
        raise refuse("an audit key is 64 hexadecimal characters; `openssl rand -hex 32` makes one")
    if find_spec(SIGNS_WITH) is None:
        raise refuse("an audit key needs one more package: pip install 'approvals-bot[audit]'")
    return value


def _in_folder(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise refuse("a path is missing")
    return Path((info.context or {}).get("folder", "")) / value if isinstance(value, (str, Path)) else value


class AnchorPlace(Frozen):
    """Where anchors go: to the end of a file, or by POST to a target of `[http]`."""

    file: Annotated[Path, BeforeValidator(_in_folder)] | None = None
    http: Slug | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> AnchorPlace:
        if (self.file is None) == (self.http is None):
            raise refuse('write { file = "anchors.jsonl" } or { http = "siem" }')
        return self


class AuditTable(Frozen):
    """How the audit is protected. `peers`: whether lines keep the addresses that requests came from."""

    key: Annotated[Secret, AfterValidator(_audit_key)] | None = None
    anchor_every: Duration = timedelta(hours=1)
    anchors: tuple[AnchorPlace, ...] = ()
    peers: Literal["keep", "none"] = "keep"

    @model_validator(mode="after")
    def _anchors_are_signed(self) -> AuditTable:
        if self.anchors and self.key is None:
            raise refuse("anchors are signed; set key", at="anchors")
        return self

    @property
    def seed(self) -> bytes | None:
        """The key's 32 bytes."""
        return None if self.key is None else bytes.fromhex(self.key.get_secret_value())

    def targets(self) -> list[tuple[int, Any]]:
        """Return the names of the HTTP targets, each with its place in the list."""
        return [(at, place.http) for at, place in enumerate(self.anchors) if place.http is not None]
