"""The playground of `approvals-bot dev`: a stand-in Slack, a mailbox, HTTP targets, and pages to look at them.

A new user has neither Slack nor SMTP. The service talks to these stand-ins exactly as it talks to the real ones (by
`api_url`, by host and port) and no code of the service can tell the difference. Nothing here is for production: it
listens on loopback only and refuses other callers.
"""

from approvals_bot.playground.playground import Playground, Sample
from approvals_bot.playground.routes import routes
from approvals_bot.playground.slack.shapes import APP_ID, OUTSIDERS, SeedApp, SeedChannel, SeedGroup, User

__all__ = ["APP_ID", "OUTSIDERS", "Playground", "Sample", "SeedApp", "SeedChannel", "SeedGroup", "User", "routes"]
