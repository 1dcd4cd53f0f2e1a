"""An agent as a process of its own: `python -m tests.agent.agent_process SERVER DATA CONFIG`."""

from __future__ import annotations

import asyncio
import sys

from raftreg.config import AgentSettings
from raftreg_agent.app import AgentApp
from raftreg_agent.main import run_agent


def tell(app: AgentApp) -> None:
    """Says where it listens."""
    sys.stdout.write(f"{app.http_address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    server, data_dir, config_dir = sys.argv[1:]
    settings = AgentSettings(
        node="n1",
        http_port=0,
        dns_port=-1,
        join=(server,),
        data_dir=data_dir,
        config_dir=config_dir,
        renew_s=0.1,
        lease_ttl_s=1.0,
    )
    asyncio.run(run_agent(settings, ready=tell))
