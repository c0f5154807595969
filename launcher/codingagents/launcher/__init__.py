"""The host side: the `coding-agents` command and its engines. Never ships into a container."""
