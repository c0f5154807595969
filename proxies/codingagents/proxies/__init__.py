"""Helper processes: one per remote MCP server, asyncio, never trio."""
