"""What each setting means, in the words of docs/configuration.md, for the schemas that editors show.

The package has a copy of that page. Its tables have a row for each setting, and one for each table of the files.
"""

from __future__ import annotations

import re
from typing import Literal

from approvals_bot.config.load import samples

Of = Literal["config.toml", "workflow"]

_SETTING = re.compile(r"^\| `(?P<path>[^`]+)` \| [^|]+ \| [^|]* \| (?P<meaning>[^|]+) \|$", re.MULTILINE)
_TABLE = re.compile(r"^\| `\[\[?(?P<path>[^\]]+)\]\]?` \| (?P<meaning>[^|]+) \|$", re.MULTILINE)
_OF_CASE = re.compile(r"^\| (?P<keys>`\w+`(?:, `\w+`)*) \| (?P<meaning>.+) \|$", re.MULTILINE)
_CASES = re.compile(r"^\| Key of .*\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<to>[^)]+)\)")


def descriptions(of: Of) -> dict[str, str]:
    """Return what each setting and table of this file means, by its path: `stage[].need`, `stage`."""
    page = (samples() / "docs" / "configuration.md").read_text("utf-8")
    _, of_service, of_workflow = re.split(r"^## ", page, flags=re.MULTILINE)[:3]
    part = of_service if of == "config.toml" else of_workflow
    rows = [*_TABLE.finditer(part), *_SETTING.finditer(part)]
    return {row["path"]: _LINK.sub(_plain, row["meaning"]).strip() for row in rows}


def descriptions_of_tests() -> dict[str, str]:
    """Return what each key of a policy test's case means."""
    page = (samples() / "docs" / "configuration.md").read_text("utf-8")
    table = _CASES.search(page)
    rows = _OF_CASE.finditer(table["rows"] if table is not None else "")
    return {key: row["meaning"] for row in rows for key in re.findall(r"\w+", row["keys"])}


def _plain(link: re.Match[str]) -> str:
    """Write a link as text: one that only points somewhere as the place in the docs."""
    file, _, heading = link["to"].partition("#")
    place = f"docs/{file or 'configuration.md'}" + (f"#{heading}" if heading else "")
    return f"see {place}" if link["text"] == "see below" else place if link["text"] == file else link["text"]
