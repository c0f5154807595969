"""CORE: the keys that Codex itself knows in config.toml: accepted, not acted on, and passed through to Codex.

Data only, from openai/codex: `ConfigToml` (codex-rs/config/src/config_toml.rs) and `RawMcpServerConfig`
(codex-rs/config/src/mcp_types.rs), as of Codex 0.169. A key that we act on is not here.
"""

from __future__ import annotations

_TOP_LEVEL = """
    agents allow_login_shell allow_symlinked_codex_home analytics approval_policy approvals_reviewer apps
    apps_mcp_product_sku audio auto_review background_terminal_max_timeout browser_use chatgpt_base_url
    check_for_update_on_startup cli_auth_credentials_store compact_prompt computer_use default_permissions desktop
    developer_instructions disable_paste_burst experimental_compact_prompt_file
    experimental_realtime_start_instructions experimental_realtime_webrtc_call_base_url
    experimental_realtime_ws_backend_prompt experimental_realtime_ws_base_url experimental_realtime_ws_model
    experimental_realtime_ws_startup_context experimental_thread_store experimental_thread_store_endpoint
    experimental_use_unified_exec_tool features feedback file_opener forced_chatgpt_workspace_id forced_login_method
    ghost_snapshot goals hide_agent_reasoning history hooks include_apps_instructions
    include_collaboration_mode_instructions include_environment_context include_permissions_instructions instructions
    js_repl_node_module_dirs js_repl_node_path log_dir marketplaces mcp_oauth_callback_port mcp_oauth_callback_url
    mcp_oauth_credentials_store mcp_optional_startup_grace_ms memories model model_auto_compact_token_limit
    model_auto_compact_token_limit_scope model_catalog_json model_context_window model_instructions_file model_provider
    model_providers model_reasoning_effort model_reasoning_summary model_verbosity notice notify openai_base_url
    orchestrator oss_provider otel permissions personality plan_mode_reasoning_effort plugins profile profiles
    project_doc_fallback_filenames project_doc_max_bytes project_root_markers projects realtime responses_api_metadata
    review_model sandbox_mode sandbox_workspace_write service_tier shell_environment_policy show_raw_agent_reasoning
    skills sqlite_home suppress_unstable_features_warning thread_unload_delay_secs tool_output_token_limit tool_suggest
    tools tui web_search windows
"""

_ANY_SERVER = """
    default_tools_approval_mode disabled_tools enabled_tools environment_id name omit_tools_from required scopes
    startup_timeout_ms startup_timeout_sec supports_parallel_tool_calls tool_timeout_sec tools
"""

TOP_LEVEL = frozenset(_TOP_LEVEL.split())
ANY_SERVER = frozenset(_ANY_SERVER.split())
# Codex refuses to start on a key of the other transport, so each kind of server has its own.
REMOTE_SERVER = ANY_SERVER | {"auth", "http_headers_helper", "oauth", "oauth_resource"}
COMMAND_SERVER = ANY_SERVER | {"cwd", "env_vars"}
