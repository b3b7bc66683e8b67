"""The service, put together: the only room where its objects are built.

Programs that embed the service, such as tests of a configuration, need two names:

    async with open_service(read_configuration(Path("config.toml"))) as service:
        run_asgi(service.app)
"""

from approvals_bot.app.service import Service, open_service
from approvals_bot.service.catalog import read_configuration

__all__ = ["Service", "open_service", "read_configuration"]
