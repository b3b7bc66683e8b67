"""`python -m approvals_bot` does what the command `approvals-bot` does."""

from approvals_bot.cli import main

main()
