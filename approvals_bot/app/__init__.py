"""Builds the running service out of its parts, and is the only package that does.

To embed the service in a program, for example to test a configuration:

    async with open_service(read_configuration(Path("config.toml"))) as service:
        run_asgi(service.app)
"""

from approvals_bot.app.service import Service, open_service
from approvals_bot.service.catalog import read_configuration

__all__ = ["Service", "open_service", "read_configuration"]
