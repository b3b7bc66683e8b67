"""Checks of what a workflow's file refers to, and of its people. (For keys and lines, see the broken files.)"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition
from approvals_bot.config.checks import check_definition
from approvals_bot.config.load import workflow_files
from approvals_bot.config.service import ServiceSettings

GROUPS: dict[str, Any] = {
    "two": ["ann@acme.eu", "bo@acme.eu"],
    "three": ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"],
    "ann": ["ann@acme.eu"],
    "nobody": [],
    "live": "slack:@sre",
}


def service(**tables: Any) -> ServiceSettings:
    content = {
        "server": {"base_url": "https://approve.acme.eu", "signing_keys": ["env:KEY"]},
        "api_keys": {"ci": "env:CI"},
        "slack": {"bot_token": "env:T", "app_token": "env:A"},
        "email": {"host": "smtp.acme.eu", "sender": "a@acme.eu"},
        "groups": GROUPS,
        "people": {"ann@acme.eu": {"manager": "cfo@acme.eu"}},
        "directory": {"oncall": {"sre": ["di@acme.eu"]}, "owner-of": {"env": {"prod": ["cy@acme.eu"]}}},
    }
    env = {name: f"{name}-" * 32 for name in ("KEY", "CI", "T", "A")}
    return ServiceSettings.model_validate({**content, **tables}, context={"env": env, "folder": Path("/srv")})


def workflow(*stages: dict[str, Any], request: tuple[str, ...] = ("*",), **tables: Any) -> Definition:
    content = {
        "workflow": {"id": "x", "title": "X", "request": list(request)},
        "fields": {"env": {"type": "enum", "values": ["staging", "prod"]}},
        "stage": [{"id": f"s{at}"} | stage for at, stage in enumerate(stages)],
    }
    return Definition.model_validate({**content, **tables})


def problems(definition: Definition, of: ServiceSettings | None = None) -> list[str]:
    return [
        f"{'.'.join(map(str, each.path))}: {each.message}" for each in check_definition(definition, of or service())
    ]


SAMPLES = workflow_files(Path(__file__).parents[2] / "workflows")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_pass_with_the_example_config(path: Path) -> None:
    content = tomllib.loads((path.parents[1] / "config.example.toml").read_text())

    class Everything(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            return f"{name}-" * 8

    of = ServiceSettings.model_validate(content, context={"env": Everything(), "folder": path.parents[1]})
    assert problems(Definition.model_validate(tomllib.loads(path.read_text())), of) == []


FILLABLE = [
    ({"from": ["@three"], "need": 2}, ("@three",)),
    ({"from": ["@two"], "need": 2}, ("*",)),  # people outside the list may request
    ({"from": ["@two"], "need": 2}, ("@two", "app:ci")),  # the app may request
    ({"from": ["@ann"]}, ("@two",)),  # Bo may request: opening a request checks it
    ({"from": ["@ann", "manager-of:requester"]}, ("@ann",)),
    ({"from": ["@live"], "need": 7}, ("@live",)),
    ({"from": ["slack:@sre"], "need": 7}, ("*",)),
    ({"from": ["on-behalf-of"]}, ("app:ci",)),
    ({"from": ["owner-of:env"]}, ("*",)),
    ({"from": ["@two"], "need": "all"}, ("@two",)),
    ({"seat": [{"from": ["@three"]}, {"from": ["@two"]}]}, ("@three",)),
    ({"seat": [{"from": ["@ann"], "when": 'env == "prod"'}, {"from": ["@ann"], "when": 'env != "prod"'}]}, ("*",)),
]

UNFILLABLE = [
    ({"from": ["@nobody"]}, ("*",), "from: nobody is in @nobody"),
    ({"from": ["@two"], "need": 3}, ("*",), "need: 3 are needed, but @two is only 2 people"),
    (
        {"from": ["@ann", "ann@acme.eu"], "need": 2},
        ("*",),
        "need: 2 are needed, but @ann, ann@acme.eu is only 1 person",
    ),
    ({"from": ["manager-of:requester"], "need": 2}, ("*",), "need: 2 are needed, but"),
    ({"from": ["owner-of:env"], "need": 2}, ("*",), "need: 2 are needed, but"),
    ({"from": ["oncall:sre"], "need": 2}, ("*",), "need: 2 are needed, but"),
    ({"from": ["@two"], "need": 2}, ("@two",), "can't be filled"),
    ({"from": ["@ann"]}, ("ann@acme.eu",), "can't be filled"),
    ({"from": ["@ann"], "need": "all"}, ("@ann",), "can't be filled"),
    ({"seat": [{"from": ["@two"]}, {"from": ["@ann"]}, {"from": ["@ann"]}]}, ("*",), "can't be filled"),
    ({"seat": [{"from": ["@two"]}, {"from": ["@two"]}]}, ("@two",), "can't be filled"),
    ({"seat": [{"from": ["@ann"]}, {"from": ["@ann"], "when": 'env == "prod"'}]}, ("*",), "can't be filled"),
]


@pytest.mark.parametrize(("stage", "request_"), FILLABLE)
def test_a_stage_that_can_be_filled_passes(stage: dict[str, Any], request_: tuple[str, ...]) -> None:
    assert problems(workflow(stage, request=request_)) == []


@pytest.mark.parametrize(("stage", "request_", "message"), UNFILLABLE)
def test_a_stage_that_nobody_could_fill_is_found(
    stage: dict[str, Any], request_: tuple[str, ...], message: str
) -> None:
    found = problems(workflow(stage, request=request_))
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("stage.0")


def test_self_approval_changes_who_could_fill_a_stage() -> None:
    stage = {"from": ["@ann"]}
    assert problems(workflow(stage, request=("@ann",), policy={"self_approval": "never"})) != []
    assert problems(workflow(stage, request=("@ann",), policy={"self_approval": "allow"})) == []
    assert problems(workflow(stage, request=("@ann",), policy={"self_approval": "skip-up"})) == [], (
        "their manager decides"
    )
    alone = service(people={})
    assert problems(workflow(stage, request=("@ann",), policy={"self_approval": "skip-up"}), alone) != []


def test_the_second_stage_is_checked_too() -> None:
    found = problems(workflow({"from": ["@three"]}, {"from": ["@nobody"], "when": 'env == "prod"'}))
    assert found == ["stage.1.seat.0.from: nobody is in @nobody"]


def test_live_sources_are_not_checked_in_advance() -> None:
    of = service(directory={"http": "who"}, http={"who": {"url": "https://who.acme.eu"}})
    assert problems(workflow({"from": ["oncall:anything", "owner-of:env"], "need": 5}), of) == []


def test_delivery_needs_configured_channels() -> None:
    everything = {"slack": "#x", "dm": True, "email": True}
    definition = workflow({"from": ["@two"]}, deliver=everything, on={"ended": [{"slack": "#x", "text": "t"}]})
    assert problems(definition) == []
    groups = {"two": GROUPS["two"]}
    assert problems(definition, service(slack=None, groups=groups)) == [
        "deliver.slack: Slack is not configured",
        "on.ended.0.slack: Slack is not configured",
    ]
    assert problems(definition, service(email=None)) == ["deliver.email: email is not configured"]
    only_dm = workflow({"from": ["@two"]}, deliver={"dm": True})
    assert problems(only_dm, service(slack=None, groups=groups)) == [], "dm falls back to mail"
    assert problems(only_dm, service(slack=None, email=None, groups=groups)) != []


def test_an_approval_needs_a_title_and_a_stage() -> None:
    bare = Definition.model_validate({"workflow": {"id": "x", "request": ["*"]}})
    assert [each.split(":")[0] for each in problems(bare)] == ["workflow.title", "stage"]


def test_a_python_workflow_needs_neither() -> None:
    about = {"id": "x", "request": ["*"], "run": "greeting:greet"}
    definition = Definition.model_validate(
        {"workflow": about, "fields": {"name": "string"}, "settings": {"loud": True}}
    )
    assert problems(definition) == []
    for run in ("greeting", "greeting:", ":greet", "a b:c", "os.path:join()", "../x:y"):
        wrong = Definition.model_validate({"workflow": about | {"run": run}})
        assert problems(wrong) == ['workflow.run: write the function as "module:function"']


def test_answers_and_change_requests_need_a_comment() -> None:
    stage = {"from": ["@two"], "comment": "never", "outcomes": ["approve", "changes"]}
    assert problems(workflow(stage)) == ["stage.0.comment: answers and requests for changes are written in the comment"]


def test_a_call_must_be_signed() -> None:
    definition = workflow({"from": ["@two"]}, on={"approved": [{"http": "x"}]})
    unsigned = service(http={"x": {"url": "https://x.eu"}})
    (problem,) = problems(definition, unsigned)
    assert problem == (
        "on.approved.0.http: [http.x] has no secret to sign the call with; "
        'write secret = "env:NAME" or "file:path" there'
    )
    assert problems(definition, service(http={"x": {"url": "https://x.eu", "secret": "env:A"}})) == []
