"""Errors in what a file says about channels and files name the file, line and key, and suggest the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.test_broken_files import SERVICE, WORKFLOW, Office, has_problem

OAUTH = """sender = "Approvals <approvals@acme.eu>"
username = "approvals"
[email.oauth]
"""
BOX = """sender = "Approvals <approvals@acme.eu>"
[email.bounces]
address = "bounces@acme.eu"
[email.bounces.imap]
host = "imap.acme.eu"
username = "bounces"
[email.bounces.imap.oauth]
"""
REPLIES = """sender = "Approvals <approvals@acme.eu>"
[email.replies]
address = "reply@acme.eu"
"""

BROKEN_SERVICE = [
    # (what replaces the sender's line, text on the reported line, key, part of the message, suggestion)
    (OAUTH + 'token = "abc"', 'token = "a', "email.oauth.token", "don't belong in this file", ""),
    (OAUTH + 'token = "env:NOPE"', 'token = "env:N', "email.oauth.token", "NOPE is not set", ""),
    (OAUTH + 'tokn = "env:KEY"', "tokn", "email.oauth.tokn", "unknown key", "token"),
    (OAUTH + 'token_command = "cat x"', "token_command", "email.oauth.token_command", "must be a list", ""),
    (OAUTH + "token_command = []", "token_command", "email.oauth.token_command", "must not be empty", ""),
    (OAUTH + 'token_url = "http://id.eu/t"', "token_url", "email.oauth.token_url", "https://", ""),
    (OAUTH + 'token_url = "https://id.eu/t"', "[email.oauth]", "email.oauth.client_id", "needs client_id", ""),
    (
        OAUTH + 'token_url = "https://id.eu/t"\nclient_id = "x"',
        "[email.oauth]",
        "email.oauth.client_secret",
        "needs client_id and client_secret",
        "",
    ),
    (OAUTH + 'token = "env:KEY"\nscope = "x"', "scope", "email.oauth.scope", "belongs to token_url", ""),
    (
        OAUTH + 'token = "env:KEY"\ntoken_command = ["x"]',
        "token_command",
        "email.oauth.token_command",
        "set one of",
        "",
    ),
    (OAUTH, "[email.oauth]", "email.oauth.token", "set one of token, token_command and token_url", ""),
    (
        OAUTH.replace('username = "approvals"\n', "") + 'token = "env:KEY"',
        "[email]",
        "email.username",
        "set both username and password",
        "",
    ),
    (
        OAUTH.replace("[email.oauth]", 'password = "env:KEY"\n[email.oauth]') + 'token = "env:KEY"',
        "[email.oauth]",
        "email.oauth",
        "not both",
        "",
    ),
    (
        BOX + 'client_secrt = "env:KEY"',
        "client_secrt",
        "email.bounces.imap.oauth.client_secrt",
        "unknown",
        "client_sec",
    ),
    (BOX + 'token_url = "ftp://x"', "token_url", "email.bounces.imap.oauth.token_url", "https://", ""),
    (REPLIES + 'listen = "127.0.0.1:25"', "[email.replies]", "email.replies.trusted_authserv", "is missing", ""),
    (
        REPLIES + 'listen = "127.0.0.1:25"\ntrusted_authserv = ["mx acme"]',
        "trusted_auth",
        "email.replies.trusted_authserv[0]",
        "Authentication-Results",
        "",
    ),
    (
        REPLIES + 'trusted_authserv = ["mx.acme.eu"]',
        "[email.replies]",
        "email.replies.listen",
        "set listen, where your relay",
        "",
    ),
    (
        REPLIES + 'listen = "mx:25"\ntrusted_authserv = ["mx.acme.eu"]',
        "listen",
        "email.replies.listen",
        "an IP address of this machine",
        "",
    ),
]

BROKEN_PROXIES = [
    ("[slack]", '[slack]\nproxy = "proxy:3128"', "slack.proxy", "write a proxy", ""),
    ("[slack]", '[slack]\nproxy = "socks5://proxy:1080"', "slack.proxy", "write a proxy", ""),
    ("[slack]", '[slack]\nproxy = "http://me:pw@proxy:3128"', "slack.proxy", "passwords don't belong", ""),
    ("[slack]", '[slack]\nproxy = "env:NOPE"', "slack.proxy", "NOPE is not set", ""),
    ("[slack]", '[slack]\nproxi = "http://p:1"', "slack.proxi", "unknown key", "proxy"),
    ("[server]", '[server]\nproxy = "http://proxy:3128/path"', "server.proxy", "write a proxy", ""),
    ("[server]", '[server]\nproxy = "http://me:pw@proxy:3128"', "server.proxy", "passwords don't belong", ""),
    ("[server]", "[server]\nproxy = 3128", "server.proxy", "write a proxy", ""),
    ("[server]", '[server]\nno_proxy = ["http://x"]', "server.no_proxy[0]", "write a host", "x"),
    ("[server]", '[server]\nno_proxy = ["*.acme.eu"]', "server.no_proxy[0]", "write a host", ".acme.eu"),
    ("[server]", '[server]\nno_proxy = ["erp.acme.eu:8443"]', "server.no_proxy[0]", "write a host", "erp.acme.eu"),
    ("[server]", '[server]\nno_proxy = ["erp.eu,hr.eu"]', "server.no_proxy[0]", "write a host", ""),
    ("[server]", '[server]\nno_proxy = "x"', "server.no_proxy", "must be a list", ""),
    ("[server]", '[server]\nno_prxy = ["x"]', "server.no_prxy", "unknown key", "no_proxy"),
]

FILES = [
    ("[fields]", '[fields]\nplan = { type = "fil" }', "fields.plan.type", "must be", "file"),
    ("[fields]", '[fields]\nplan = { type = "file", min = 1 }', "fields.plan.min", "is for", ""),
    (
        "[fields]",
        '[fields]\nplan = { type = "file", default = "x" }',
        "fields.plan.default",
        "a file has no default",
        "",
    ),
    ("[fields]", '[fields]\nplan = { type = "file", max_length = 5 }', "fields.plan.max_length", "is for", ""),
    ("[fields]", '[fields]\nplan = { type = "file", pined = true }', "fields.plan.pined", "unknown key", "pinned"),
    ("[fields]", '[fields]\nplan = { type = "file", view = "diff" }', "fields.plan.view", "is for", ""),
    ("email = true", 'email = true\nemail_replies = "decid"', "deliver.email_replies", "must be", "decide"),
    ("email = true", 'email = true\nemail_replies = "decide"', "deliver.email_replies", "i_know = true", ""),
    ("email = true", "email = true\nemail_replies = true", "deliver.email_replies", "must be", ""),
    ("email = true", "email = true\ni_know = true", "deliver.i_know", "belongs to email_replies", ""),
    ("email = true", 'email = true\ni_know = "yes"', "deliver.i_know", "must be true", ""),
    ("email = true", 'email = true\nemail_reply = "decide"', "deliver.email_reply", "unknown key", "email_replies"),
    (
        "email = true",
        'email = true\nlink_auth = "code"\ni_know = true\nemail_replies = "decide"',
        "deliver.email_replies",
        "link_auth",
        "",
    ),
]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@pytest.mark.parametrize(("new", "where", "key", "message", "meant"), BROKEN_SERVICE)
def test_faults_of_mail_accounts_name_line_key_and_suggestion(
    office: Office, new: str, where: str, key: str, message: str, meant: str
) -> None:
    office.write(service=SERVICE.replace('sender = "Approvals <approvals@acme.eu>"', new))
    has_problem(office, office.config, where, key, message, meant)


@pytest.mark.parametrize(("old", "new", "key", "message", "meant"), BROKEN_PROXIES)
def test_faults_of_proxies_name_line_key_and_suggestion(
    office: Office, old: str, new: str, key: str, message: str, meant: str
) -> None:
    office.write(service=SERVICE.replace(old, new, 1))
    has_problem(office, office.config, new.partition("\n")[2], key, message, meant)


@pytest.mark.parametrize(("old", "new", "key", "message", "meant"), FILES)
def test_faults_of_files_and_replies_name_line_key_and_suggestion(
    office: Office, old: str, new: str, key: str, message: str, meant: str
) -> None:
    office.write(workflow=WORKFLOW.replace(old, new, 1))
    has_problem(office, office.workflow, new.splitlines()[-1], key, message, meant)
