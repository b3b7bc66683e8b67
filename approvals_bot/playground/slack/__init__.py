"""The fake Slack: a workspace in memory, its Web API, and people who click."""
