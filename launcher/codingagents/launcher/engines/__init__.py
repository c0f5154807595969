"""Engines: what a session runs in. The launcher's only place that starts and awaits processes."""
