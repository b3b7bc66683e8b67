"""Workflows in sub-folders, and files that extend another."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals_bot.approvals.policy import Definition, digest
from approvals_bot.config.checks import check_definition
from approvals_bot.config.load import load_configuration
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.service.catalog import check_configuration, load_catalog, read_configuration

CONFIG = """\
[server]
base_url     = "http://127.0.0.1:8000"
signing_keys = ["env:KEY"]
[email]
host     = "127.0.0.1"
security = "none"
sender   = "a@acme.eu"
[groups]
core = ["ann@acme.eu", "bo@acme.eu"]
"""
PAY = """\
[workflow]
id      = "pay"
title   = "Pay {{ amount }}"
request = ["*"]
[fields]
amount = "integer"
[[stage]]
id   = "ok"
from = ["@core"]
[deliver]
email = true
[clock]
none = true
"""
DEFAULTS = """\
[workflow]
title   = "{{ amount }}"
request = ["*"]
[fields]
amount = { type = "integer", min = 1 }
[policy]
outcomes = ["approve", "reject", "changes"]
[[stage]]
id   = "of-all"
from = ["@core"]
[clock]
deadline = "4h"
"""
ENV = {"KEY": "a signing key of the tests: 0123456789"}


class Folder:
    """A configuration whose workflows a test writes."""

    def __init__(self, path: Path) -> None:
        self.config, self.workflows = path / "config.toml", path / "workflows"
        self.config.write_text(CONFIG)
        self.workflows.mkdir()

    def write(self, name: str, text: str) -> Path:
        path = self.workflows / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self) -> dict[str, Definition]:
        loaded = load_configuration(self.config, ENV, check_definition)
        return {each.id: each for each in loaded.workflows}

    def problems(self) -> list[str]:
        with pytest.raises(ConfigErrors) as raised:
            self.load()
        return [str(problem).removeprefix(f"{self.workflows}/") for problem in raised.value.problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_sub_folder_is_part_of_the_name(folder: Folder) -> None:
    for name in ("pay.toml", "team-a/pay.toml", "team-a/eu/pay.toml", "team-b/pay.toml"):
        folder.write(name, PAY)
    folder.write("team-a/pay.test.toml", "")
    loaded = folder.load()
    assert [*loaded] == ["pay", "team-a/eu/pay", "team-a/pay", "team-b/pay"]
    assert len({digest(each) for each in loaded.values()}) == 4
    assert Definition.model_validate(loaded["team-a/pay"].model_dump(exclude_none=True)).id == "team-a/pay"


def test_id_and_folder_of_a_file_are_checked(folder: Folder) -> None:
    folder.write("team-a/pay.toml", PAY.replace('"pay"', '"team-a/pay"'))
    folder.write("my team/pay.toml", PAY)
    call = PAY.replace('"pay"', '"tool-call"').replace("{{ amount }}", "").replace('[fields]\namount = "integer"\n', "")
    folder.write("team-a/tool-call.toml", call)
    folder.write("team-a/simulation.toml", PAY.replace('"pay"', '"simulation"'))
    assert folder.problems() == [
        'my team/pay.toml:1: file: the folder "my team" is part of the workflow\'s name: use letters, digits, "-", "_" '
        'and "."',
        'team-a/pay.toml:2: workflow.id: must be the file\'s name, "pay" (did you mean pay?)',
        "team-a/simulation.toml:2: workflow.id: ends the URL of another page; take another name in a sub-folder",
        "team-a/tool-call.toml:2: workflow.id: is read only at the top of the folder of workflows",
    ]


def test_files_that_are_not_read_are_named(folder: Folder, tmp_path: Path) -> None:
    for name in ("pay.toml", "a/b/c/d/e/f/pay.toml", "pay.toml.bak", "team-a/.pay.toml", "PAY.TOML", "other.yaml"):
        folder.write(name, PAY)
    folder.write("_defaults.toml", DEFAULTS)
    folder.write("README.md", "")
    folder.write("__pycache__/pay.toml", PAY)
    (tmp_path / "elsewhere").mkdir()
    (folder.workflows / "linked").symlink_to(tmp_path / "elsewhere")
    checked = check_configuration(folder.config, ENV)
    assert ([*checked.names], [*checked.problems]) == (["pay"], [])
    assert {Path(each.file).relative_to(folder.workflows).as_posix(): each.message for each in checked.warnings} == {
        "PAY.TOML": "isn't read: workflows are files that end with .toml",
        "_defaults.toml": "isn't read: no workflow extends it, and a name that begins with _ is no workflow's",
        "a/b/c/d/e/f/pay.toml": "isn't read: it is more than 5 folders deep",
        "linked": "isn't read: it is a link to a folder",
        "other.yaml": "isn't read: workflows are files that end with .toml",
        "pay.toml.bak": "isn't read: workflows are files that end with .toml",
        "team-a/.pay.toml": "isn't read: its name begins with a dot",
    }


def test_python_workflow_stands_beside_its_file(folder: Folder) -> None:
    for at, name in enumerate(("team-a", "team-b")):
        folder.write(f"{name}/refund.toml", '[workflow]\nid = "refund"\nrequest = ["*"]\nrun = "code:refund"\n')
        code = f"from approvals_bot import workflow\n\n@workflow(name='refund_of_{at}')\nasync def refund() -> int:\n"
        folder.write(f"{name}/code.py", f"{code}    return {at}\n")
    listed = load_catalog(read_configuration(folder.config, ENV)).listed
    assert {name: each.workflow.code for name, each in listed.items() if name != "tool-call"} == {
        "team-a/refund": "refund_of_0",
        "team-b/refund": "refund_of_1",
    }
    folder.write("refund.toml", '[workflow]\nid = "refund"\nrequest = ["*"]\nrun = "code:refund"\n')
    with pytest.raises(ConfigErrors, match=r"no code\.py with a @workflow was found in the workflows folder"):
        load_catalog(read_configuration(folder.config, ENV))


def test_extended_tables_merge_and_lists_are_replaced(folder: Folder) -> None:
    folder.write("_defaults.toml", DEFAULTS)
    own = '[fields]\namount = { max = 9 }\nwhy = "text"\n[policy]\noutcomes = ["approve"]\n'
    folder.write("small.toml", f'extends = "_defaults.toml"\n[workflow]\nid = "small"\n{own}')
    stage = '[[stage]]\nid = "own"\nfrom = ["@core"]\n'
    folder.write("plain.toml", f'extends = "_defaults.toml"\nworkflow.id = "plain"\n{stage}')
    loaded = folder.load()
    small = loaded["small"]
    assert [*small.fields] == ["amount", "why"]
    assert (small.fields["amount"].min, small.fields["amount"].max) == ("1", "9")
    assert (small.policy.outcomes, [stage.id for stage in small.stage]) == (("approve",), ["of-all"])
    assert (loaded["plain"].policy.outcomes[-1], [stage.id for stage in loaded["plain"].stage]) == ("changes", ["own"])
    before = digest(small)
    folder.write("_defaults.toml", DEFAULTS.replace("4h", "5h"))
    assert digest(folder.load()["small"]) != before


def test_mistakes_are_named_where_they_stand(folder: Folder) -> None:
    broken = DEFAULTS.replace("4h", "soon").replace('"@core"', '"@coer"')
    folder.write("_defaults.toml", broken)
    for name in ("one", "two"):
        folder.write(f"{name}.toml", f'extends = "_defaults.toml"\nworkflow.id = "{name}"\nclock.remind = ["x"]\n')
    problems = [problem.partition(": ")[0] for problem in folder.problems()]
    assert problems == ["_defaults.toml:10", "_defaults.toml:12", "one.toml:3", "two.toml:3"]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("../_defaults.toml", "without .."),
        ("/etc/passwd.toml", "without .."),
        ("_gone.toml", "there is no _gone.toml beside this file"),
        ("_link.toml", "leads out of the folder of workflows"),
        ("_defaults", "write the name of a file"),
        ("pay.toml", "is this file itself"),
        ("_twice.toml", "pay.toml extends this file, so it can't extend another"),
    ],
)
def test_no_file_extends_what_it_may_not(folder: Folder, tmp_path: Path, named: str, says: str) -> None:
    folder.write("_defaults.toml", DEFAULTS)
    folder.write("_twice.toml", 'extends = "_defaults.toml"\n')
    (tmp_path / "outside.toml").write_text(DEFAULTS)
    (folder.workflows / "_link.toml").symlink_to(tmp_path / "outside.toml")
    folder.write("team-a/_defaults.toml", DEFAULTS)
    folder.write("pay.toml", f'extends = "{named}"\n{PAY}')
    (problem,) = folder.problems()
    assert says in problem
    assert problem.startswith("_twice.toml:1: extends: " if named == "_twice.toml" else "pay.toml:1: extends: ")


def test_texts_and_digests_cover_both_files(folder: Folder) -> None:
    folder.write("team-a/_defaults.toml", DEFAULTS)
    folder.write("team-a/pay.toml", f'extends = "_defaults.toml"\n{PAY.replace("none = true", "")}')
    loaded = load_configuration(folder.config, ENV, check_definition)
    assert [*loaded.files] == ["config.toml", "team-a/_defaults.toml", "team-a/pay.toml"]
    text = loaded.texts["team-a/pay"]
    assert text.startswith('extends = "_defaults.toml"\n[workflow]')
    assert text.endswith(f"# _defaults.toml, which this file extends:\n\n{DEFAULTS}")
