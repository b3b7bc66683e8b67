"""Fixtures that every room's tests may use: `clock` and `open_engine`."""

pytest_plugins = ["approvals_bot.testing.fixtures"]
