"""The service, put together: the only place where its objects are built."""

from __future__ import annotations

from approvals_bot.app.directory import known_people, open_people
from approvals_bot.app.listing import Listing, find_problems, list_workflows, read_configuration, workflows_folder
from approvals_bot.app.service import Service, needing_a_restart, open_service

__all__ = [
    "Listing",
    "Service",
    "find_problems",
    "known_people",
    "list_workflows",
    "needing_a_restart",
    "open_people",
    "open_service",
    "read_configuration",
    "workflows_folder",
]
