"""Self-signed certificates, for servers that tests run."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server's context with a self-signed certificate for this name, which is in `name.pem`."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    extension = ["-addext", f"subjectAltName={'IP' if name[0].isdigit() else 'DNS'}:{name}"]
    subprocess.run([*command, *extension, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context
