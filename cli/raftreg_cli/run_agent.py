"""The process `raftreg agent`."""

from __future__ import annotations

from raftreg.config import AgentSettings
from raftreg_agent.main import run_agent as run_agent_process


async def run_agent(settings: AgentSettings) -> None:
    """Runs an agent until SIGTERM, SIGINT, or a request to leave.

    Raises:
        RaftregError: It could not start; the text says why.
    """
    await run_agent_process(settings)
