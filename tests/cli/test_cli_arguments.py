"""Arguments that can't be right, whatever is in the database: exit status 2, as docs/cli.md says."""

from __future__ import annotations

import pytest

from tests.support.small_site import Site

WHY = ("--reason", "x")

WRONG: list[tuple[tuple[str, ...], str]] = [
    (("fial",), "fial"),
    (("vote", "run_x"), "--by"),
    (("start", "leave", "--input", "{"), "--input is not JSON"),
    (("start", "leave", "--input", '{"days": "a", "days": "b"}'), "--input is not JSON: the key 'days' is there twice"),
    (("start", "leave", "--input", '{"days": NaN}'), "--input is not JSON: there is no NaN in JSON"),
    (("start", "leave", "--input", "[]"), "--input must be a JSON object"),
    (("simulate", "leave", "--input", "3 days"), "--input is not JSON"),
    (("resume", "token", "--payload", "yes"), "--payload is not JSON"),
    (("vote", "run_x", "--by", "ann@acme.eu", "--choice", "maybe"), "There is no choice 'maybe'"),
    (("vote", "run_x", "--by", "ann@acme.eu", "--choice", "approve", "--answer", "five"), "Write --answer name=value"),
    (("vote", "run_x", "--by", "ann@acme.eu", "--choice", "edit", "--field", "=5"), "Write --field name=value"),
    (("runs", "--status", "broken"), "There is no status 'broken'"),
    (("runs", "--cursor", "nowhere"), "--cursor"),
    (("runs", "--limit", "0"), "--limit"),
    (("check", "--ended", "30d"), "--ended needs --runs"),
    (("check", "--runs", "--ended", "soon"), "--ended: 'soon' is not a duration"),
    (("retry", *WHY, "--since", "yesterday", "--yes"), "--since 'yesterday'"),
    (("reset", "run_x", *WHY, "--to", "0"), "--to is the number of an event"),
    (("serve", "--workers", "2"), "--workers 2 isn't possible"),
    (("serve", "--port", "70000"), "--port"),
    (("slack", "manifest", "--base-url", "approve.acme.eu"), "--base-url: write a URL"),
    (("audit", "verify", "file.jsonl", "--key", "secret"), "Write --key as env:NAME"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_arguments_exit_with_2(site: Site, words: tuple[str, ...], said: str) -> None:
    site.type("migrate")
    refused = site.type(*words, fails=2)
    assert said in refused.stderr
    assert refused.stdout == ""


def test_a_name_that_no_workflow_can_have_is_refused_by_init(site: Site) -> None:
    words = ("init", str(site.folder / "new"), "--you", "ann", "--colleague", "bo@acme.eu", "--what", "leave")
    assert '"ann" is not an email address' in site.type(*words, fails=2).stderr


def test_what_the_database_lacks_is_no_wrong_argument(site: Site) -> None:
    site.type("migrate")
    assert "No run has the ID" in site.type("show", "run_x", fails=1).stderr
    assert "no workflow named" in site.type("simulate", "tea", fails=1).stderr
