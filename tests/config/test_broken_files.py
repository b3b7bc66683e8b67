"""Errors in configuration files name the file, line and key, and suggest the nearest valid name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from approvals_bot.config.checks import check_definition
from approvals_bot.config.load import LARGEST_FILE, Configuration, load_configuration
from approvals_bot.config.messages import ConfigErrors, ConfigProblem
from approvals_bot.service.python_workflows import import_programs

SERVICE = """\
[server]
base_url = "https://approve.acme.eu"
signing_keys = ["env:KEY"]
[api_keys]
ci = "env:CI_KEY"
[slack]
bot_token = "env:SLACK_BOT_TOKEN"
signing_secret = "env:SLACK_SIGNING_SECRET"
[email]
host = "smtp.acme.eu"
sender = "Approvals <approvals@acme.eu>"
[people."ann@acme.eu"]
name = "Ann Ode"
[groups]
release-managers = ["ann@acme.eu", "bo@acme.eu"]
lonely = ["ann@acme.eu"]
[directory]
oncall.sre = ["di@acme.eu"]
owner-of.env = { prod = "cy@acme.eu" }
[http.deploy-api]
url = "https://deploy.acme.eu/hooks"
secret = "env:DEPLOY_HMAC"
"""

WORKFLOW = """\
[workflow]
id = "deploy"
title = "Deploy {{ version }} to {{ env }}"
request = ["@release-managers", "app:ci"]
[fields]
version = { type = "string", pinned = true }
env = { type = "enum", values = ["staging", "prod"] }
amount = { type = "money", currency = "EUR", required = false }
[policy]
reject = "any"
[[auto]]
when = 'env == "staging"'
decision = "approve"
[[stage]]
id = "go"
from = ["@release-managers"]
need = 1
[deliver]
slack = "#deploys"
email = true
[clock]
deadline = "4h"
remind = ["30m", "2h"]
on_deadline = "reject"
[[escalate]]
after = "1h"
to = ["oncall:sre"]
[[on.approved]]
http = "deploy-api"
json = { version = "{{ version }}" }
[[on.ended]]
dm = "requester"
text = "{{ request.title }}: {{ decision.outcome }}"
"""

ENV = {
    "KEY": "k" * 32,
    "SHORT": "three",
    "CI_KEY": "ci-key-of-the-tests-with-32-bytes",
    "SLACK_BOT_TOKEN": "xoxb-not-a-real-one",
    "SLACK_SIGNING_SECRET": "5ec2e7",
    "DEPLOY_HMAC": "hmac",
}


class Office:
    """A folder with the two files, to write and load."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self.workflow = folder / "workflows" / "deploy.toml"
        self.workflow.parent.mkdir()
        self.env = dict(ENV)
        self.write()

    def write(self, service: str = SERVICE, workflow: str = WORKFLOW) -> None:
        self.config.write_text(service)
        self.workflow.write_text(workflow)

    def load(self) -> Configuration:
        return load_configuration(self.config, self.env, check_definition)

    def problems(self) -> tuple[ConfigProblem, ...]:
        with pytest.raises(ConfigErrors) as refused:
            self.load()
        return refused.value.problems


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_valid_files_load(office: Office) -> None:
    configuration = office.load()
    assert [workflow.id for workflow in configuration.workflows] == ["deploy"]


BROKEN_SERVICE = [
    # (old text, its replacement, text on the reported line, key, part of the message, suggestion)
    ("base_url", "base_urll", "base_urll", "server.base_urll", "unknown key", "base_url"),
    ("base_url", "base_urll", "[server]", "server.base_url", "is missing", ""),
    ('"https://approve.acme.eu"', '"approve.acme.eu"', "base_url", "server.base_url", "write a URL", ""),
    ('"https://approve.acme.eu"', '"https://x.eu/?a=b"', "base_url", "server.base_url", "without a query", ""),
    ('"https://approve.acme.eu"', '"https://me:pw@x.eu"', "base_url", "server.base_url", "password", ""),
    ('["env:KEY"]', '["env:NOPE"]', "signing_keys", "server.signing_keys[0]", "NOPE is not set", ""),
    ('["env:KEY"]', '["env:SHORT"]', "signing_keys", "server.signing_keys[0]", "32 bytes", ""),
    ('ci = "env:CI_KEY"', 'ci = "env:SHORT"', "ci =", "api_keys.ci", "at least 32 bytes", ""),
    ('ci = "env:CI_KEY"', 'ci = ["env:CI_KEY", "env:SHORT"]', "ci =", "api_keys.ci[1]", "at least 32 bytes", ""),
    ('ci = "env:CI_KEY"', 'ci = { key = "env:CI_KEY", may = ["wote"] }', "ci =", "api_keys.ci.may[0]", "", "vote"),
    (
        'ci = "env:CI_KEY"',
        'ci = { key = "env:CI_KEY", requesters = ["@nobody"] }',
        "ci =",
        "api_keys.ci.requesters[0]",
        "no group",
        "",
    ),
    (
        'ci = "env:CI_KEY"',
        'ci = { key = "env:CI_KEY", requesters = ["app:x"] }',
        "ci =",
        "api_keys.ci.requesters[0]",
        "",
        "",
    ),
    ('ci = "env:CI_KEY"', 'ci = { key = "env:CI_KEY", expires = "soon" }', "ci =", "api_keys.ci.expires", "", ""),
    ('["env:KEY"]', "[]", "signing_keys", "server.signing_keys", "must not be empty", ""),
    ('["env:KEY"]', '"env:KEY"', "signing_keys", "server.signing_keys", "must be a list", ""),
    ('["env:KEY"]', '["k-in-the-file-itself-32-bytes-long"]', "signing_keys", "server.signing_keys[0]", "env:NAME", ""),
    ('["env:KEY"]', '["file:no-such-file"]', "signing_keys", "server.signing_keys[0]", "no-such-file can't be", ""),
    ("[server]", '[server]\ndatabase = "mysql://x"', "database", "server.database", "sqlite:///", ""),
    ("[server]", '[server]\nallow_private = ["10.0.0.1"]', "allow_private", "server.allow_private[0]", "port", ""),
    ('"https://approve.acme.eu"', '"http://approve.acme.eu"', "base_url", "server.base_url", "unencrypted", "https://"),
    ("[server]", '[server]\ntrusted_proxies = ["10.0.0.0/33"]', "trusted", "server.trusted_proxies[0]", "network", ""),
    ("[server]", '[server]\nproxy = "proxy:3128"', "proxy", "server.proxy", "write a proxy", ""),
    ("[server]", "[server]\nstep_threads = 0", "step_threads", "server.step_threads", "at least 1", ""),
    ("[server]", "[server]\ncancel_grace = 60", "cancel_grace", "server.cancel_grace", "write a duration", ""),
    ("[server]", '[server]\ncancel_grace = "8d"', "cancel_grace", "server.cancel_grace", "a week at most", "7d"),
    ("[server]", "[hook]\nmax_waiting = 49\n[server]", "max_waiting", "hook.max_waiting", "at least 50", ""),
    ("[slack]", "[slak]", "[slak]", "slak", "unknown key", "slack"),
    ("[slack]", "[slack]\nexternal_users = 'deni'", "external", "slack.external_users", "must be", "deny"),
    ('signing_secret = "env:SLACK_SIGNING_SECRET"\n', "", "[slack]", "slack", "Socket Mode", ""),
    ("signing_secret =", "signing_secrets =", "signing_secrets", "slack.signing_secrets", "unknown", "signing_secret"),
    ('"env:SLACK_BOT_TOKEN"', '"xoxb-1-2-3"', "bot_token", "slack.bot_token", "don't belong in this file", ""),
    ('host = "smtp.acme.eu"', 'host = "smtp.acme.eu"\nport = "25"', "port", "email.port", "whole number", ""),
    ('host = "smtp.acme.eu"', 'host = "smtp.acme.eu"\nport = 70000', "port", "email.port", "at most 65535", ""),
    (
        'host = "smtp.acme.eu"',
        'host = "smtp.acme.eu"\nsecurity = "none"',
        "security",
        "email.security",
        "this mach",
        "starttls",
    ),
    ('host = "smtp.acme.eu"', 'host = "smtp.acme.eu"\nusername = "x"', "[email]", "email.password", "set both", ""),
    ("Approvals <approvals@acme.eu>", "Approvals", "sender", "email.sender", "write a sender", ""),
    ('people."ann@acme.eu"', 'people."ann"', "[people", "people.ann", "not an email address", ""),
    ('name = "Ann Ode"', 'nmae = "Ann"', "nmae", 'people."ann@acme.eu".nmae', "unknown key", "name"),
    ('name = "Ann Ode"', 'zone = "Mars/Base"', "zone", 'people."ann@acme.eu".zone', "not a time zone", ""),
    (
        'name = "Ann Ode"',
        'slack = "U0ANN"\n[people."bo@acme.eu"]\nslack = "U0ANN"  # too',
        "# too",
        'people."bo@acme.eu".slack',
        "ann@acme.eu has this Slack ID too",
        "",
    ),
    (
        'name = "Ann Ode"',
        '[people."ANN@acme.eu"]  # again',
        "# again",
        'people."ANN@acme.eu"',
        '"ann@acme.eu" and "ANN@acme.eu" are the same person',
        "",
    ),
    ('name = "Ann Ode"', 'slack = "@ann"', "slack =", 'people."ann@acme.eu".slack', "Slack user ID", ""),
    (
        'name = "Ann Ode"',
        'name = "Ann Ode"\naway = [{ from = "2026-12-21", until = "2026-12-20" }]',
        "away",
        'people."ann@acme.eu".away[0].until',
        "is before the first day",
        "",
    ),
    (
        'name = "Ann Ode"',
        'name = "Ann Ode"\naway = [{ from = "2026-12-21", until = "2026-12-22", delegate = "ann@acme.eu" }]',
        "away",
        'people."ann@acme.eu".away[0].delegate',
        "people can't be their own delegate",
        "",
    ),
    ('lonely = ["ann@acme.eu"]', 'lonely = ["ann"]', "lonely", "groups.lonely[0]", "not an email address", ""),
    ('lonely = ["ann@acme.eu"]', 'lonely = "slack:sre"', "lonely", "groups.lonely", "slack:@sre", ""),
    ('lonely = ["ann@acme.eu"]', 'lonely = { http = "hr" }', "lonely", "groups.lonely.http", "no [http.hr]", ""),
    ('lonely = ["ann@acme.eu"]', 'lonely = { fil = "x" }', "lonely", "groups.lonely.fil", "unknown key", "file"),
    *(
        ('lonely = ["ann@acme.eu"]', f"lonely = {written}", "lonely", f"groups.lonely{key}", what, meant)
        for written, key, what, meant in (
            ('["bo@acme.eu", "@managers"]', "[1]", "is a group", '{ all = ["bo@acme.eu", "@managers"] }'),
            ('["@lonley"]', ".all[0]", "no group is called lonley", "@lonely"),
            (
                '{ all = "@release-managers", not = "@release-manager" }',
                ".not[0]",
                "no group is called",
                "@release-managers",
            ),
            ('{ all = "oncall:sre" }', ".all[0]", "made of groups and people", ""),
            ('{ all = "@lonely" }', "", "is a circle: @lonely → @lonely", ""),
            ('["@second"]\nsecond = { all = "bo@acme.eu", not = "@lonely" }', "", "@lonely → @second → @lonely", ""),
            ('{ not = "@managers" }', ".all", "is missing", ""),
        )
    ),
    ("oncall.sre", "oncal.sre", "oncal.sre", "directory.oncal", "unknown key", "oncall"),
    ('"https://deploy.acme.eu/hooks"', '"ftp://x"', 'url = "ftp', "http.deploy-api.url", "write a URL", ""),
    ("[http.deploy", "[calendars.x]\nzone = 'UTC'\n[http.deploy", "[calendars.x]", "calendars.x.hours", "missing", ""),
    (
        "[http.deploy",
        "[calendars.x]\nzone = 'UTC'\nhours = []\n[http.deploy",
        "hours",
        "calendars.x.hours",
        "never open",
        "",
    ),
    (
        "[http.deploy",
        "[calendars.x]\nzone = 'UTC'\nhours = '9-17'\n[http.deploy",
        "hours",
        "calendars.x.hours",
        "write hours like",
        "",
    ),
    (
        "[http.deploy",
        "[calendars.x]\nzone = 'UTC'\nhours = '09:00-17:00'\nholidays = ['25.12.']\n[http.deploy",
        "holidays",
        "calendars.x.holidays[0]",
        "write a day",
        "",
    ),
    (
        'ci = "env:CI_KEY"',
        'ci = { key = "env:CI_KEY", vote = true }',
        "ci =",
        "api_keys.ci.vote",
        "unknown",
        "may_vote",
    ),
    ("[http.deploy", "[limits]\nerp = 5\n[http.deploy", "erp", "limits.erp", "", "[limits.erp]"),
    ("[http.deploy", "[limits]\nerp = {}\n[http.deploy", "erp", "limits.erp.at_once", "missing", ""),
    ("[http.deploy", "[limits]\nerp = { at_once = 0 }\n[http.deploy", "erp", "limits.erp.at_once", "1", ""),
    ("[http.deploy", "[limits]\nerp = { at_one = 5 }\n[http.deploy", "erp", "limits.erp.at_one", "unknown", "at_once"),
    ('ci = "env:CI_KEY"', 'ci = "env:CI_KEY"\nca = "env:CI_KEY"', "[api_keys]", "api_keys", "the same key", ""),
    (
        'name = "Ann Ode"',
        '[people."ann@acme.eu".away]\nfrom = "2026-12-21"',
        ".away]",
        'people."ann@acme.eu".away',
        "must be a list of tables",
        '[[people."ann@acme.eu".away]]',
    ),
    ("[groups]", "[[groups]]", "[[groups]]", "groups", "must be a table", "[groups]"),
]

BROKEN_WORKFLOW = [
    ('id = "deploy"', 'id = "deply"', "id =", "workflow.id", "the file's name", "deploy"),
    ("request = [", "reqest = [", "[workflow]", "workflow.request", "is missing", ""),
    ("request = [", "reqest = [", "reqest", "workflow.reqest", "unknown key", "request"),
    ("{{ version }} to", "{{ vrsion }} to", "title", "workflow.title", "nothing is called vrsion", "version"),
    ("{{ version }} to", "{{ version", "title", "workflow.title", "syntax error", ""),
    ("{{ version }} to", "{{ 'x' * 10**8 }}", "title", "workflow.title", "multiplication", ""),
    ("{{ version }} to", "{{ request.title }}", "title", "workflow.title", "before the decision", ""),
    ('"app:ci"', '"app:cii"', "request", "workflow.request[1]", "no key in [api_keys]", "app:ci"),
    (
        '["@release-managers", "app',
        '["@release-manager", "app',
        "request",
        "workflow.request[0]",
        "no group",
        "@release",
    ),
    ('"string", pinned', '"strng", pinned', "version =", "fields.version.type", "must be", "string"),
    ('"string", pinned', '"array", pinned', "version =", "fields.version", 'type must be "string", "text"', ""),
    ("pinned = true", "pined = true", "version =", "fields.version.pined", "unknown key", "pinned"),
    ("pinned = true", "min = 3", "version =", "fields.version.min", "is for integer", ""),
    ("pinned = true", 'pattern = "(a"', "version =", "fields.version.pattern", "regular expression", ""),
    (', values = ["staging", "prod"]', "", "env =", "fields.env.values", "needs its values", ""),
    ('currency = "EUR", ', "", "amount =", "fields.amount.currency", "needs its currency", ""),
    ('currency = "EUR", ', 'currency = "EUR", min = "1,5", ', "amount =", "fields.amount.min", "must be a number", ""),
    (
        'currency = "EUR", ',
        'currency = "EUR", default = "x", ',
        "amount =",
        "fields.amount.default",
        "not a valid value",
        "",
    ),
    ("version = {", "request = {", "request = {", "fields.request", "another meaning", ""),
    ('reject = "any"', 'reject = "an"', "reject", "policy.reject", "must be", "any"),
    ('reject = "any"', "reject = 0", "reject", "policy.reject", "at least 1", ""),
    ('reject = "any"', 'self_approval = "alow"', "self_app", "policy.self_approval", "must be", "allow"),
    ('reject = "any"', 'on_change = { amonut = "keep" }', "on_change", "policy.on_change.amonut", "no such", "amount"),
    ('reject = "any"', 'on_change = { env = "reset-if-raised" }', "on_ch", "policy.on_change.env", "raised", "reset"),
    ('reject = "any"', 'outcomes = ["reject"]', "outcomes", "policy.outcomes", "could ever approve", ""),
    ('reject = "any"', 'outcomes = ["approve", "edit"]', "outcomes", "policy.outcomes", "editable", ""),
    ('env == "staging"\'', 'evn == "staging"\'', "when", "auto[0].when", "no field is called evn", "env"),
    ('env == "staging"\'', 'env == "stagin"\'', "when", "auto[0].when", "not a value of env", "staging"),
    ('env == "staging"\'', 'amount > "5"\'', "when", "auto[0].when", "different types", "5"),
    ('env == "staging"\'', 'env =~ "s.*"\'', "when", "auto[0].when", "regular expressions", ""),
    ('env == "staging"\'', "env == null and amount > 5 or amount < 1'", "when", "auto[0].when", "brackets", ""),
    ('decision = "approve"', 'decision = "aprove"', "decision", "auto[0].decision", "must be", "approve"),
    ('from = ["@release-managers"]', 'form = ["@x"]', "[[stage]]", "stage[0].from", "is missing", ""),
    ('from = ["@release-managers"]', 'form = ["@x"]', "form", "stage[0].form", "unknown key", "from"),
    ('from = ["@release-managers"]', "from = []", "from", "stage[0].from", "must not be empty", ""),
    ('from = ["@release-managers"]', 'from = ["@relase-managers"]', "from", "stage[0].from[0]", "no group", "@release"),
    ('from = ["@release-managers"]', 'from = ["ann"]', "from", "stage[0].from[0]", "is not an address", ""),
    ('from = ["@release-managers"]', 'from = ["oncall:sr"]', "from", "stage[0].from[0]", "no oncall.sr", "oncall:sre"),
    ('from = ["@release-managers"]', 'from = ["owner-of:evn"]', "from", "stage[0].from[0]", "no field", "owner-of:env"),
    (
        'from = ["@release-managers"]',
        'from = ["manager-of:approver"]',
        "from",
        "stage[0].from[0]",
        "[[escalate]]",
        "man",
    ),
    ("[[stage]]", "[stage]", "[stage]", "stage", "must be a list of tables", "[[stage]]"),
    ("[[auto]]", "[auto]", "[auto]", "auto", "must be a list of tables", "[[auto]]"),
    ("[[on.ended]]", "[on.ended]", "[on.ended]", "on.ended", "must be a list of tables", "[[on.ended]]"),
    ("[[escalate]]", "[escalate]", "[escalate]", "escalate", "must be a list of tables", "[[escalate]]"),
    ("[deliver]", "[schedule]\n[deliver]", "[schedule]", "schedule", "must be a list of tables", "[[schedule]]"),
    ("[workflow]", 'schedule = "@daily"\n[workflow]', "schedule =", "schedule", "must be a list of tables", "[[sched"),
    ("[deliver]", "[[deliver]]", "[[deliver]]", "deliver", "must be a table", "[deliver]"),
    (
        'from = ["@release-managers"]\nneed = 1',
        '[stage.seat]\nfrom = ["@lonely"]',
        "[stage.seat]",
        "stage[0].seat",
        "must be a list of tables",
        "[[stage.seat]]",
    ),
    ("need = 1", "need = 3", "need", "stage[0].need", "3 are needed, but @release-managers is only 2 people", ""),
    ("need = 1", 'need = "al"', "need", "stage[0].need", "write a whole number", "all"),
    ("need = 1", 'need = 1\nask = { code = "strin" }', "ask", "stage[0].ask.code", "must be", "string"),
    (
        "need = 1",
        'need = 1\nask = { code = "object" }',
        "ask",
        "stage[0].ask.code",
        'type must be "string", "text"',
        "",
    ),
    ("need = 1", "need = 1\n[[stage.seat]]\nfrom = ['@lonely']", "from", "stage[0].from", "belongs in one", ""),
    (
        "need = 1",
        "need = 1\n[[stage.any]]\nseats = [{ from = ['@lonely'] }]",
        "from",
        "stage[0].from",
        'this stage has alternatives, so "from" belongs in one of them',
        "",
    ),
    (
        'from = ["@release-managers"]\nneed = 1',
        "any = [\n{ seats = [{ from = ['@release-managers'] }] },\n{ seats = [{ from = ['@lonely'], need = 2 }] },\n]",
        "{ seats = [{ from = ['@lonely']",
        "stage[0].any[1].seats[0].need",
        "2 are needed, but @lonely is only 1 person",
        "",
    ),
    (
        'from = ["@release-managers"]\nneed = 1',
        "[[stage.any]]\nseats = [{ from = ['@release-managers'], need = 'all' }, { from = ['@lonely', '@lonly'] }]",
        "seats",
        "stage[0].any[0].seats[1].from[1]",
        "no group is called lonly",
        "@lonely",
    ),
    (
        "[deliver]",
        '[[stage]]\nid = "go"\nfrom = ["@lonely"]\n[deliver]',
        'go"\nfrom = ["@l',
        "stage[1].id",
        "another",
        "",
    ),
    ('slack = "#deploys"', 'slack = "deploys"', "slack =", "deliver.slack", "#deploys", "#deploys"),
    ('slack = "#deploys"', 'slack = "#Deploys"', "slack =", "deliver.slack", "in lower case", "#deploys"),
    ('slack = "#deploys"', 'slack = "#GRÖSSE"', "slack =", "deliver.slack", "in lower case", "#grösse"),
    ('slack = "#deploys"', 'slack = "#Über-{{ env }}"', "slack =", "deliver.slack", "lower case", "#über-{{ env }}"),
    ('slack = "#deploys"', 'slack = "#a/b"', "slack =", "deliver.slack", "without spaces or dots", ""),
    ('slack = "#deploys"', f'slack = "#{"a" * 81}"', "slack =", "deliver.slack", "write a channel like", ""),
    ('slack = "#deploys"', 'slack = "#{{ evn }}"', "slack =", "deliver.slack", "no field is called evn", "#{{ env }}"),
    (
        "need = 1",
        'deliver = { slack = "#{{ title }}" }',
        "deliver = {",
        "stage[0].deliver.slack",
        "no field is called title",
        "",
    ),
    ("email = true", 'email = "in 10m"', "email =", "deliver.email", "after 10m", ""),
    ('deadline = "4h"', 'deadline = "4 hrz"', "deadline =", "clock.deadline", "duration", ""),
    ('deadline = "4h"', 'deadline = "2 busines days"', "deadline =", "clock.deadline", "duration", ""),
    ('deadline = "4h"', 'deadline = "2 business days"', "deadline =", "clock.deadline", "needs a calendar", ""),
    (
        'deadline = "4h"',
        'deadline = "2 business days"\ncalendar = "offce"',
        "calendar",
        "clock.calendar",
        "no calendar",
        "",
    ),
    (
        'deadline = "4h"',
        'deadline = "1 business day"\ncalendar = { zone = "UTC", hours = {} }',
        "calendar",
        "clock.calendar.hours",
        "never open",
        "",
    ),
    ('deadline = "4h"', 'deadline = "24:00"', "deadline =", "clock.deadline", "is not a time of day", ""),
    ('deadline = "4h"', 'deadline = "field:due"', "deadline =", "clock.deadline", "no field is called due", ""),
    (
        'from = ["@release-managers"]',
        'from = ["@release-managers"]\ndeadline = "field:env"',
        "field:env",
        "stage[0].deadline",
        "a field of type enum",
        "",
    ),
    ('deadline = "4h"', 'deadline = "field:env"', "deadline =", "clock.deadline", "a field of type enum", ""),
    (
        'deadline = "4h"',
        'deadline = "4h"\nzone = "Berlin"',
        "zone",
        "clock.zone",
        "is not a time zone",
        "Europe/Berlin",
    ),
    (
        """when = 'env == "staging"'""",
        """when = 'business_hours("berln")'""",
        "when =",
        "auto[0].when",
        "no calendar is called berln",
        "",
    ),
    ("""when = 'env == "staging"'""", "when = 'now.hours > 9'", "when =", "auto[0].when", "write now.w", "now.hour"),
    ('["30m", "2h"]', '["9 business days"]', "remind", "clock.remind[0]", "needs a calendar; add one", ""),
    ('deadline = "4h"', "deadine = '4h'", "deadine", "clock.deadine", "unknown key", "deadline"),
    ('["30m", "2h"]', '["30m", "5h"]', "remind", "clock.remind", "never be sent", ""),
    ('["30m", "2h"]', '{ first = "30m", bakoff = 2, max = 2 }', "remind", "clock.remind.bakoff", "unknown", "backoff"),
    ('= "reject"\n[[esc', '= "approve"\n[[esc', "on_deadline", "clock.on_deadline", "i_know = true", ""),
    ('= "reject"\n[[esc', '= "rejct"\n[[esc', "on_deadline", "clock.on_deadline", "must be", "reject"),
    ("need = 1", 'deadline = "1h"\nremind = ["90m"]', 'remind = ["90m', "stage[0].remind", "never be sent", ""),
    ("need = 1", 'on_deadline = "approve"', 'deadline = "app', "stage[0].on_deadline", "i_know = true", ""),
    ("need = 1", 'deadline = "1 business day"', 'deadline = "1 b', "stage[0].deadline", "needs a calendar", ""),
    ("need = 1", "deliver = { emial = true }", "deliver = {", "stage[0].deliver.emial", "unknown key", "email"),
    ("need = 1", 'deliver = { slack = "deploys" }', "deliver = {", "stage[0].deliver.slack", "#deploys", "#deploys"),
    ("need = 1", 'deliver = { email = "after 5h" }', "deliver = {", "stage[0].deliver.email", "never be sent", ""),
    ('after = "1h"', 'after = "5h"', "after", "escalate[0].after", "deadline is earlier", ""),
    ("email = true", 'email = "after 5h"', "email", "deliver.email", "this mail would never be sent", ""),
    ('"oncall:sre"', '"@nobody-here"', "to =", "escalate[0].to[0]", "no group", ""),
    ("[[on.approved]]", "[[on.aproved]]", "[[on.aproved]]", "on.aproved", "unknown key", "approved"),
    ('http = "deploy-api"', 'http = "deploy-ap"', "http =", "on.approved[0].http", "no [http.deploy-ap]", "deploy-api"),
    (
        '{ version = "{{ version }}" }',
        '{ a = ["{{ v }}"] }',
        "json",
        "on.approved[0].json.a[0]",
        "nothing is called v",
        "",
    ),
    ('http = "deploy-api"', 'htp = "deploy-api"', "htp =", "on.approved[0].htp", "unknown key", "http"),
    ('http = "deploy-api"\n', "", "[[on.approved]]", "on.approved[0]", "needs exactly one of http", ""),
    ('dm = "requester"', 'dm = "requestor"', "dm =", "on.ended[0].dm", "is not an address", ""),
    ("{{ decision.outcome }}", "{{ decision.outcom }}", "text", "on.ended[0].text", "has no outcom", "outcome"),
    ('id = "deploy"', 'id = "deploy"\nrun = "greeting"', "run =", "workflow.run", "module:function", ""),
    ("[policy]", "[settings]\na = 1\n[policy]", "[settings]", "settings", "Python workflows", ""),
    ("version = {", "version = { {", "version = {", "syntax", "", ""),
    ("need = 1", "need = 1\nneed = 2", "need = 2", "syntax", "need is there twice, first in line", ""),
]


@pytest.mark.parametrize(("old", "new", "where", "key", "message", "meant"), BROKEN_SERVICE)
def test_service_file_errors_name_line_key_and_suggestion(
    office: Office, old: str, new: str, where: str, key: str, message: str, meant: str
) -> None:
    assert old in SERVICE
    office.write(service=SERVICE.replace(old, new, 1))
    has_problem(office, office.config, where, key, message, meant)


@pytest.mark.parametrize(("old", "new", "where", "key", "message", "meant"), BROKEN_WORKFLOW)
def test_workflow_file_errors_name_line_key_and_suggestion(
    office: Office, old: str, new: str, where: str, key: str, message: str, meant: str
) -> None:
    assert old in WORKFLOW
    office.write(workflow=WORKFLOW.replace(old, new, 1))
    has_problem(office, office.workflow, where, key, message, meant)


def has_problem(office: Office, file: Path, where: str, key: str, message: str, meant: str) -> None:
    text = file.read_text()
    line = text[: text.index(where)].count("\n") + 1
    problems = office.problems()
    fitting = [each for each in problems if each.key == key and message in each.message]
    assert fitting, [str(each) for each in problems]
    assert [(each.file, each.line) for each in fitting] == [(str(file), line)]
    assert fitting[0].suggestion.startswith(meant)
    assert bool(fitting[0].suggestion) == bool(meant)
    assert str(fitting[0]).startswith(f"{file}:{line}: {key}: ")
    assert all(each.file == str(file) for each in problems), "one mistake, one file"
    assert len(problems) <= 2 or key == "workflow.run", [str(each) for each in problems]


def test_python_workflow_refuses_the_tables_of_approvals(office: Office) -> None:
    office.write(workflow=WORKFLOW.replace('id = "deploy"', 'id = "deploy"\nrun = "greeting:greet"'))
    found = {each.key for each in office.problems()}
    assert found == {"policy", "auto", "stage", "deliver", "clock", "escalate", "on"}


def test_all_problems_of_all_files_are_reported_at_once(office: Office) -> None:
    del office.env["CI_KEY"]
    broken = WORKFLOW.replace("pinned = true", "pined = true").replace('"staging"\'', '"stagin"\'')
    office.write(workflow=broken.replace("@release-managers", "@nobody").replace("4h", "4 hrs."))
    (office.workflow.parent / "empty.toml").write_text("")
    (office.workflow.parent / "torn.toml").write_text("[workflow]\nid = ")
    assert [(Path(each.file).name, each.line, each.key) for each in office.problems()] == [
        ("config.toml", 5, "api_keys.ci"),
        ("deploy.toml", 4, "workflow.request[0]"),
        ("deploy.toml", 6, "fields.version.pined"),
        ("deploy.toml", 16, "stage[0].from[0]"),
        ("deploy.toml", 22, "clock.deadline"),
        ("empty.toml", 1, "workflow"),
        ("torn.toml", 2, "syntax"),
    ]


def test_error_in_a_short_form_hides_no_other_error(office: Office) -> None:
    broken = WORKFLOW.replace('{ type = "money", currency = "EUR", required = false }', '"money"')
    office.write(workflow=broken.replace('from = ["@release-managers"]', 'from = ["@nobody"]'))
    assert [each.key for each in office.problems()] == ["fields.amount.currency", "stage[0].from[0]"]


def test_at_least_sixty_kinds_of_errors_are_tested() -> None:
    kinds = {(key, message, meant) for _, _, _, key, message, meant in (*BROKEN_SERVICE, *BROKEN_WORKFLOW)}
    assert len(kinds) >= 60


def test_invalid_field_hides_no_error_in_another_field(office: Office) -> None:
    fields = '[fields]\nrisky = "texxt"\nrisk = { type = "enum", values = ["low", "high"], default = "lowe" }\n'
    office.write(workflow=WORKFLOW.replace("[fields]\n", fields))
    keys = [problem.key for problem in office.problems()]
    assert "fields.risk.default" in keys


def test_consequential_errors_are_not_reported(office: Office) -> None:
    office.write(workflow=WORKFLOW.replace("env = {", "1env = {"))
    assert [each.key for each in office.problems()] == ["fields.1env"]


def test_errors_and_reprs_never_show_a_secret(office: Office) -> None:
    secret = "xoxb-0123456789-canary"
    office.env |= {"KEY": secret, "CI_KEY": secret, "DEPLOY_HMAC": secret}
    for name in ("signing_keys = [", "bot_token = ", "secret = ", "ci = "):
        office.write(
            service=SERVICE.replace(name, f'{name}"{secret}", "x" #' if "[" in name else f'{name}"{secret}" #')
        )
        assert "canary" not in "".join(str(each) + repr(each) for each in office.problems())
    office.env["KEY"] = secret * 2
    office.env["CI_KEY"] = "canary-ci-with-at-least-32-bytes-of-it"
    office.write()
    shown = repr(office.load()) + str(office.load().service.model_dump()) + office.load().service.model_dump_json()
    assert "canary" not in shown
    assert office.load().service.api_keys["ci"].key[0].get_secret_value() == "canary-ci-with-at-least-32-bytes-of-it"


@pytest.mark.parametrize(
    ("content", "line", "key", "message"),
    [
        (b"a = 1\n" + b".".join([b"a"] * 50_000) + b" = 1\n", 2, "syntax", "at most"),
        (b"a = " + b"[" * 2_000 + b"]" * 2_000, 1, "syntax", "at most 20 deep"),
        (b"b = 1\na = " + b"1" * 5_000, 2, "syntax", "too long"),
        (b"x" * 9_000 + b" = 1", 1, "syntax", "8,192"),
        (b"#" * (LARGEST_FILE + 1), 1, "file", "larger than"),
        (b'a = 1\nb = "\xff"\n', 2, "syntax", "UTF-8"),
        (b"a = 1\n\nb = \n", 3, "syntax", "b has no value"),
        (b'\na = """\nx\n', 2, "syntax", "unterminated"),
        (b"\x00", 1, "syntax", ""),
        (b"[a]\n[a]\n", 2, "syntax", "twice"),
        (b"a = 2026-13-45\n", 1, "syntax", ""),
    ],
)
def test_invalid_or_excessive_toml_is_refused_quickly(
    office: Office, content: bytes, line: int, key: str, message: str
) -> None:
    office.config.write_bytes(content)
    started = time.process_time()
    problem = office.problems()[0]
    assert time.process_time() - started < 0.5
    assert (problem.line, problem.key) == (line, key)
    assert message in problem.message


def test_file_with_a_byte_order_mark_loads(office: Office) -> None:
    office.config.write_bytes(b"\xef\xbb\xbf" + SERVICE.encode())
    office.load()


def test_missing_file_and_folder_are_reported(office: Office, tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"nowhere.toml:1: file: can't be read: No such file"):
        load_configuration(tmp_path / "nowhere.toml", {})
    office.write(service=SERVICE.replace("[server]", '[server]\nworkflows = "elsewhere"'))
    with pytest.raises(ConfigErrors, match=r"config.toml:2: server.workflows: the folder .*elsewhere doesn't exist"):
        office.load()
    (office.config.parent / "elsewhere").write_text("no folder")
    with pytest.raises(ConfigErrors, match=r"elsewhere:1: file: can't be read: Not a directory"):
        office.load()


def test_dotfiles_of_editors_are_ignored(office: Office) -> None:
    office.write(service=SERVICE)
    names = [definition.id for definition in office.load().workflows]
    folder = office.config.parent / "workflows"
    (folder / ".#deploy.toml").symlink_to("di@laptop.4711:1795340000")
    (folder / "._deploy.toml").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".notes.py").write_text("this is not Python")
    assert [definition.id for definition in office.load().workflows] == names
    assert import_programs(folder) == ([], [])
