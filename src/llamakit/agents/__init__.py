"""Agents: a turn loop that asks for what it needs, tools and their arguments, MCP servers, sessions that last."""
