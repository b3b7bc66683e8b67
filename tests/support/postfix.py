"""A real relay that we did not write: Postfix, from a folder of its own, on ports of its own, for the time of a test.

It is taken from the system, or from where `APPROVALS_BOT_TEST_POSTFIX` says a Debian package was unpacked:
`apt-get download postfix && dpkg-deb -x postfix_*.deb FOLDER`. Its master only runs as root.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("APPROVALS_BOT_TEST_POSTFIX", "/"))
MASTER = ROOT / "usr/lib/postfix/sbin/master"
SIZE_LIMIT = 200_000  # bytes: little, so that a test can go past it

needs_postfix = pytest.mark.skipif(
    not MASTER.exists() or os.geteuid() != 0,
    reason="no Postfix, or not root: no real relay has judged our mails (see tests/support/postfix.py)",
)

SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

SETTINGS = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {root}usr/sbin
daemon_directory = {root}usr/lib/postfix/sbin
shlib_directory = {root}usr/lib/postfix
meta_directory = {folder}/etc
mail_owner = games
setgid_group = floppy
default_privs = nobody
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.test
mydestination =
maillog_file = {folder}/queue/mail.log
maillog_file_prefixes = /
smtpd_tls_cert_file = {folder}/etc/cert.pem
smtpd_tls_key_file = {folder}/etc/key.pem
smtpd_tls_security_level = encrypt
message_size_limit = {size}
smtputf8_enable = yes
default_database_type = texthash
alias_maps =
alias_database =
recipient_delimiter = +
transport_maps = texthash:{folder}/etc/transport
smtpd_recipient_restrictions = check_recipient_access texthash:{folder}/etc/access, permit_mynetworks, reject
mynetworks = 127.0.0.0/8
"""


@dataclass
class Postfix:
    """Takes mail at `port`, by STARTTLS only. `grey@` is greylisted."""

    folder: Path
    port: int
    tls: ssl.SSLContext


@asynccontextmanager
async def postfix(folder: Path, *, port: int, mailbox: int, bounces: int) -> AsyncIterator[Postfix]:
    """Runs while the block does. It hands mail for acme.eu to `mailbox`, by SMTP, and for bounces@ to `bounces`, by
    LMTP.
    """
    etc, queue = folder / "etc", folder / "queue"
    etc.mkdir(parents=True)
    for name in ("main.cf", "master.cf"):
        text = SETTINGS if name == "main.cf" else SERVICES
        (etc / name).write_text(
            text.format(folder=folder, root=f"{ROOT}/".replace("//", "/"), size=SIZE_LIMIT, port=port)
        )
    (etc / "access").write_text("grey@acme.eu 450 4.2.0 Greylisted, come back later\n")
    routes = f"bounces@acme.eu lmtp:inet:127.0.0.1:{bounces}\nacme.eu smtp:[127.0.0.1]:{mailbox}\n"
    (etc / "transport").write_text(routes)
    line = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {etc}/key.pem -out {etc}/cert.pem -days 2"
    line += " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(line.split(), check=True, capture_output=True)
    owned = (
        "active",
        "incoming",
        "private",
        "defer",
        "deferred",
        "bounce",
        "hold",
        "corrupt",
        "flush",
        "saved",
        "trace",
    )
    for name in ("pid", "maildrop", "public", *owned):
        (queue / name).mkdir(parents=True)
    for place in (folder / "data", *(queue / name for name in (*owned, "maildrop", "public"))):
        place.mkdir(exist_ok=True)
        shutil.chown(place, "games", "floppy" if place.name in ("maildrop", "public") else None)
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)  # its processes are nobody in particular
    libraries = f"{ROOT}/usr/lib/postfix:{ROOT}/usr/lib/x86_64-linux-gnu"
    environment = {"LD_LIBRARY_PATH": libraries if Path("/") != ROOT else "", "MAIL_CONFIG": str(etc), "PATH": "/bin"}
    process = subprocess.Popen([str(MASTER), "-c", str(etc)], env=environment, stderr=subprocess.DEVNULL)
    try:
        await _listens(port)
        yield Postfix(folder, port, ssl.create_default_context(cafile=str(etc / "cert.pem")))
    finally:
        process.terminate()
        process.wait(20)


async def _listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
