"""Slack, outgoing: a card becomes one message. What comes in from Slack is received by `approvals_bot.web`."""
