"""config.toml in; client configs, helper specs and session specs out. Imports only `codingagents.trust`."""
