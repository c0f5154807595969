"""ENTRY: `python -I -m codingagents.launcher`, the same as the `coding-agents` script."""

import sys

from codingagents.launcher.cli import main

sys.exit(main())
