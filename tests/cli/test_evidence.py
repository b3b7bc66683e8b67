"""Evidence of a request verifies anywhere, with nothing but Python's standard library; one changed byte fails it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from approvals_bot import verify_evidence
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.verify_evidence import NotVerified, verify, verify_signature
from tests.cli.test_cli_audit import OWN, keyed
from tests.support.small_site import Site

PUBLIC = bytes.fromhex(OWN.public)


def decided(site: Site, requests: int) -> list[str]:
    """Return runs that two people have approved."""
    runs = [site.start(days=days) for days in range(2, requests + 2)]
    site.work()
    for run in runs:
        site.type("vote", run, "--by", "ann@acme.eu", "--choice", "approve", "--answer", "count=1")
        site.type("vote", run, "--by", "cy@acme.eu", "--choice", "approve", "--answer", "count=1")
    site.work()
    return runs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return keyed(tmp_path_factory.mktemp("evidence"))


@pytest.fixture(scope="module")
def evidence(site: Site) -> Path:
    (run,) = decided(site, 1)
    file = site.folder / "evidence.json"
    site.type("evidence", run, "--output", str(file))
    return file


def alone(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a bare Python, without this package or any other."""
    script = folder / "verify_evidence.py"
    shutil.copy(verify_evidence.__file__, script)
    command = [sys.executable, "-I", "-S", str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)  # our own words


def test_evidence_says_who_decided_what_they_saw_and_how(evidence: Path) -> None:
    assert evidence.stat().st_mode & 0o777 == 0o600
    found = verify(evidence.read_bytes(), PUBLIC)
    assert [(vote["by"], vote["choice"], vote["via"]) for vote in found["votes"]] == [
        ("ann@acme.eu", "approve", "cli"),
        ("cy@acme.eu", "approve", "cli"),
    ]
    assert "2 days off" in found["shown"][found["votes"][0]["shown"]]
    assert found["votes"][0]["actor"]["kind"] == "cli"
    assert found["asked"][0]["stages"][0]["seats"][0]["people"].keys() == {"ann@acme.eu", "cy@acme.eu"}
    assert found["outcome"][0]["state"] == "approved"
    assert [line["what"] for line in found["audit"]].count("run_ended") == 1


def test_evidence_verifies_on_a_bare_python(site: Site, evidence: Path, tmp_path: Path) -> None:
    key = tmp_path / "audit.pub"
    key.write_text(site.type("audit", "key").stdout)
    said = alone(tmp_path, str(evidence), str(key))
    assert (said.returncode, said.stdout[:8]) == (0, "Verified"), said
    other = tmp_path / "other.pub"
    other.write_text(AuditKey(b"o" * 32).public)
    assert alone(tmp_path, str(evidence), str(other)).stdout == "NOT VERIFIED: it names another public key\n"
    assert alone(tmp_path, str(tmp_path / "none"), str(key)).returncode == 1
    assert site.type("evidence", "verify", str(evidence), "--public-key", str(key)).stdout.startswith("✅ Run ")


def _change_bytes(content: bytes, rounds: int) -> None:
    rng = random.Random(16)  # noqa: S311  # the same changes each time
    for _ in range(rounds):
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        with pytest.raises(NotVerified):
            verify(bytes(changed), PUBLIC)


def test_one_changed_byte_fails_the_evidence(evidence: Path) -> None:
    _change_bytes(evidence.read_bytes(), 40)


def test_evidence_has_one_spelling(evidence: Path) -> None:
    found = json.loads(evidence.read_bytes())
    signature = found.pop("signature")
    spelled = [found | {"signature": each} for each in (signature.upper(), f" {signature}", f"{signature}\n")]
    for changed in (*spelled, {"signature": signature} | found):
        with pytest.raises(NotVerified):
            verify(verify_evidence.written(changed), PUBLIC)
    assert verify(verify_evidence.written(found | {"signature": signature}), PUBLIC)


def test_evidence_that_its_signer_made_up_does_not_fit_together(evidence: Path) -> None:
    """The holder of the key can sign anything, but votes are those of the log, and the log is a chain."""
    found = json.loads(evidence.read_bytes())
    found["votes"][0]["by"] = "di@acme.eu"
    del found["signature"]
    content = verify_evidence.written(found | {"signature": OWN.sign(found)})
    with pytest.raises(NotVerified, match="no such vote by di"):
        verify(content, PUBLIC)


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_evidence_of_50_requests_verifies_on_a_bare_python(tmp_path: Path) -> None:
    site = keyed(tmp_path)
    key = site.write("audit.pub", OWN.public)
    for number, run in enumerate(decided(site, 50)):
        file = tmp_path / f"{number}.json"
        site.type("evidence", run, "--output", str(file))
        assert alone(tmp_path, str(file), str(key)).returncode == 0
        _change_bytes(file.read_bytes(), 5)


def test_evidence_needs_an_audit_key(tmp_path: Path) -> None:
    site = keyed(tmp_path)
    run = site.start(days=2)
    site.write("config.toml", site.config.read_text().replace('key = "file:audit.key"\n', ""))
    assert "Set key in [audit]" in site.type("evidence", run, fails=True).stderr


# RFC 8032, 7.1
@pytest.mark.parametrize(
    ("public", "message", "signature"),
    [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ],
)
def test_signatures_of_the_standard_verify(public: str, message: str, signature: str) -> None:
    key, text, signed = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert verify_signature(key, text, signed)
    assert not verify_signature(key, text + b"x", signed)
    assert not verify_signature(key, text, signed[:-1] + bytes([signed[-1] ^ 1]))
    order = 2**252 + 27742317777372353535851937790883648493
    greater = (int.from_bytes(signed[32:], "little") + order).to_bytes(32, "little")
    assert not verify_signature(key, text, signed[:32] + greater), "the scalar must be the smallest one"
