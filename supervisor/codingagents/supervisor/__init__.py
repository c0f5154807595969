"""PID 1 of a session and the container's commands: trio, never asyncio."""
