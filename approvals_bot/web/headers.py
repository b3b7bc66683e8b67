"""What every answer says to the browser, pages and errors alike."""

from __future__ import annotations

SECURITY_HEADERS: dict[str, str] = {
    # Nothing is loaded but our stylesheet and pictures; no script runs, ours or anybody's; nobody frames us.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    # The path of a decision page is a key: it must not travel to other sites, stay in caches or be indexed.
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow",
}
