"""Each way to get `[exec]` wrong is one exact sentence, as in test_parse_mistakes.py."""

import pytest

from codingagents.rewrite.parse import parse_config
from codingagents.trust.errors import ConfigError

# What is wrong -> the text, and the sentence after "config.toml: ".
MISTAKES = {
    "digest": ("[exec]\ndigest_bytes = -1", "[exec] digest_bytes must be an integer from 0 to 1099511627776"),
    "network": ('[session]\nnetwork = "none"', '[session] network must be one of "host", "helpers"'),
    "layer": (
        '[session]\nlayers = { landlock = "require" }',
        '[session.layers] has no key "landlock"; did you mean "landlock_exec"?',
    ),
    "layer wish": (
        '[session]\nlayers = { exec_trap = "on" }',
        '[session.layers] exec_trap must be one of "require", "prefer", "off"',
    ),
    "route": ('[exec]\nroute = "on"', '[exec] route must be one of "auto", "always", "never"'),
    "task trees": (
        '[exec]\ntask_trees = ["/usr", "~/bin"]',
        "[exec] task_trees must hold absolute paths without empty, . and .. parts",
    ),
    "all of the environment": (
        '[exec]\ntask_environment = ["*"]',
        "[exec] task_environment must hold names of variables, or PREFIX_*",
    ),
    "a prefix without its line": (
        '[exec]\ntask_environment = ["npm_config_*", "AWS*"]',
        "[exec] task_environment must hold names of variables, or PREFIX_*",
    ),
    "a variable with a value": (
        '[exec]\ntask_environment = ["A=1"]',
        "[exec] task_environment must hold names of variables, or PREFIX_*",
    ),
    "exec mode": ('[exec]\nmode = "block"', '[exec] mode must be one of "observe", "enforce"'),
    "rule of both kinds": (
        '[exec]\nrules = [{ allow = "/a", deny = "/b" }]',
        "[exec.rules[0]] must have either allow or deny, a path or a glob",
    ),
    "rule path": (
        '[exec]\nrules = [{ deny = "/a" }, { deny = "/usr/../bin/x" }]',
        "[exec.rules[1]] deny must hold absolute paths without empty, . and .. parts",
    ),
    "rule role": (
        '[exec]\nrules = [{ deny = "/a", role = "root" }]',
        '[exec.rules[0]] role must be one of "agent", "task", "helper", "command-server"',
    ),
    "rule key": (
        '[exec]\nrules = [{ deny = "/a", arg = [] }]',
        '[exec.rules[0]] has no key "arg"; did you mean "argv"?',
    ),
    "no trees": ("[exec]\ntrees = []", "[exec] trees must not be empty: nothing at all could run"),
    "relative tree": (
        '[exec]\ntrees = ["usr"]',
        "[exec] trees must hold absolute paths without empty, . and .. parts",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_exact_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "config.toml")
    assert str(caught.value) == f"config.toml: {sentence}"
    assert "\n" not in sentence
