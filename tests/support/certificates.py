"""Self-signed certificates, for servers that tests run."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path


def certificate(folder: Path, name: str, *, is_over: bool = False) -> ssl.SSLContext:
    """A server's context with a self-signed certificate for this name, which is in `name.pem`.

    `is_over`: it ended yesterday.
    """
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    of = f"subjectAltName={'IP' if name[0].isdigit() else 'DNS'}:{name}"
    request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-addext", of, "-keyout", str(key)]
    if is_over:
        _expired(folder, key, cert, request)
    else:
        _openssl(*request, "-x509", "-days", "2", "-out", str(cert))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def _expired(folder: Path, key: Path, cert: Path, request: list[str]) -> None:
    """Make a certificate that has ended, which `openssl req` can't do."""
    (folder / "index.txt").touch()
    config = folder / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca = own\n[own]\ndatabase = {folder}/index.txt\nnew_certs_dir = {folder}\nrand_serial = yes\n"
        "default_md = sha256\npolicy = any\ncopy_extensions = copy\n[any]\ncommonName = supplied\n"
    )
    asked, now = folder / "asked.csr", datetime.now(UTC)
    days = [f"{now - timedelta(days=each):%Y%m%d%H%M%SZ}" for each in (30, 1)]
    _openssl(*request, "-out", str(asked))
    _openssl(
        "ca", "-batch", "-selfsign", "-config", str(config), "-keyfile", str(key), "-in", str(asked), "-out", str(cert),
        "-startdate", days[0], "-enddate", days[1], "-notext",
    )  # fmt: skip


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
