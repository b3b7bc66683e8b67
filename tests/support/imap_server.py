"""A small IMAP server with one mailbox, on a real socket: what a program that looks for mails needs, and no more."""

from __future__ import annotations

import re
import socketserver
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class ImapMail:
    content: bytes
    is_read: bool = False


@dataclass
class ImapServer:
    """`mails` by UID. It counts logins, and refuses them while `closed`. `tokens`: those that XOAUTH2 takes."""

    port: int = 0
    closed: bool = False
    logins: int = 0
    tokens: set[str] = field(default_factory=set)
    mails: dict[int, ImapMail] = field(default_factory=dict)

    def put(self, content: bytes) -> ImapMail:
        mail = ImapMail(content)
        self.mails[len(self.mails) + 7] = mail
        return mail


@contextmanager
def imap_server(user: str, password: str) -> Iterator[ImapServer]:
    box = ImapServer()

    class Line(socketserver.StreamRequestHandler):
        def say(self, *lines: bytes) -> None:
            self.wfile.write(b"".join(line + b"\r\n" for line in lines))

        def handle(self) -> None:
            self.say(b"* OK ready")
            while said := self.rfile.readline():
                tag, command, *given = said.decode().split()
                if command == "AUTHENTICATE":
                    failed = not self.takes_token()
                else:
                    self.answer(command.upper(), given)
                    failed = command == "LOGIN" and (box.closed or given != [user, f'"{password}"'])
                self.say(f"{tag} {'NO' if failed else 'OK'} {command}".encode())
                if command == "LOGOUT":
                    return

        def takes_token(self) -> bool:
            """Check a bearer as Google does (developers.google.com/gmail/imap/xoauth2-protocol)."""
            box.logins += 1
            self.say(b"+ ")
            named = dict(part.split("=", 1) for part in b64decode(self.rfile.readline()).decode().split("\x01") if part)
            if named in [{"user": user, "auth": f"Bearer {token}"} for token in box.tokens]:
                return True
            self.say(b"+ " + b64encode(b'{"status":"400","schemes":"Bearer","scope":"https://mail.example/"}'))
            assert self.rfile.readline() == b"\r\n", "a client answers that with an empty line"
            return False

        def answer(self, command: str, given: list[str]) -> None:
            match command, given:
                case "CAPABILITY", _:
                    self.say(b"* CAPABILITY IMAP4rev1 AUTH=XOAUTH2")
                case "LOGIN", _:
                    box.logins += 1
                case "SELECT", _:
                    self.say(f"* {len(box.mails)} EXISTS".encode())
                case "LOGOUT", _:
                    self.say(b"* BYE")
                case "UID", ["SEARCH", "UNSEEN"]:
                    unread = [str(uid) for uid, mail in box.mails.items() if not mail.is_read]
                    self.say(" ".join(["* SEARCH", *unread]).encode())
                case "UID", ["FETCH", uid, "(RFC822.SIZE)"]:
                    size = len(box.mails[int(uid)].content)
                    self.say(f"* 1 FETCH (UID {uid} RFC822.SIZE {size})".encode())
                case "UID", ["FETCH", uid, "(BODY.PEEK[])"]:
                    content = box.mails[int(uid)].content
                    self.say(f"* 1 FETCH (UID {uid} BODY[] {{{len(content)}}}".encode(), content + b")")
                case "UID", ["STORE", uids, "+FLAGS.SILENT", flags] if re.fullmatch(r"\(\\Seen\)", flags):
                    for uid in uids.split(","):
                        box.mails[int(uid)].is_read = True

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Line) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()
