"""Python releases with known holes that a stranger could use against a service."""

from __future__ import annotations

import http.cookies
import sys

MENDED = {(3, 11): 10, (3, 12): 6}
"""The first release of each line without CVE-2024-7592 (quadratic cookies) and its neighbours of that summer."""


def known_holes(version: tuple[int, int, int] | None = None, cookies: object = http.cookies) -> str | None:
    """Return a sentence about the holes of this Python, by default the running one; None if it has none known.

    Distributions mend older releases, as Debian 12 its 3.11.2, so `cookies` is looked at for the mend.

    Example: known_holes((3, 11, 7)) → "Python 3.11.7 has known security holes (…); 3.11.10 and later don't"
    """
    major, minor, micro = version or sys.version_info[:3]
    mended = MENDED.get((major, minor))
    if mended is None or micro >= mended or hasattr(cookies, "_unquote_replace"):
        return None
    return (
        f"Python {major}.{minor}.{micro} has known security holes (CVE-2024-7592 and others); "
        f"{major}.{minor}.{mended} and later don't"
    )
