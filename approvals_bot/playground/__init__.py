"""The playground of `approvals-bot dev`: a fake Slack, a mailbox, HTTP targets, and pages that show them.

New users have neither Slack nor SMTP set up. The service talks to these fakes exactly as to the real servers (through
`api_url`, host and port), and its code can't see a difference. The playground isn't for production: it listens on
loopback only and refuses other callers.
"""

from approvals_bot.playground.playground import Playground
from approvals_bot.playground.routes import routes
from approvals_bot.playground.slack.shapes import APP_ID, OUTSIDERS, SeedApp, SeedChannel, SeedGroup, User
from approvals_bot.playground.tour import Sample

__all__ = ["APP_ID", "OUTSIDERS", "Playground", "Sample", "SeedApp", "SeedChannel", "SeedGroup", "User", "routes"]
