"""`python -m approvals_bot` is the same as the command `approvals-bot`."""

from approvals_bot.cli import main

main()
