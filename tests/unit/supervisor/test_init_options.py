"""The command line of init, as a table."""

import signal

import pytest

from codingagents.supervisor.init_options import DEFAULT_GRACE, SUBREAPER, USAGE, InitUsageError, parse


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["true"], ["true"]),
        (["--", "true"], ["true"]),
        (["--", "--grace", "5"], ["--grace", "5"]),
        (["sh", "-c", "x", "--", "--help"], ["sh", "-c", "x", "--", "--help"]),
        (["--grace", "1", "--", "--", "x"], ["--", "x"]),
        ([""], [""]),
    ],
)
def test_the_command_begins_at_the_first_word_or_after_the_dashes(arguments: list[str], command: list[str]) -> None:
    """Nothing of it is interpreted."""
    options = parse(arguments)
    assert options.command == command
    assert (options.session, options.control_fd, options.help) == (None, None, False)


def test_options_take_their_value_either_way() -> None:
    """`--name value` and `--name=value` are the same."""
    options = parse(["--session=/run/s", "--control-fd", "7"])
    assert (options.session, options.control_fd, options.command) == ("/run/s", 7, [])
    assert parse(["--grace=0", "true"]).grace == 0.0
    assert parse(["true"]).grace == DEFAULT_GRACE


@pytest.mark.parametrize("word", ["TERM", "SIGTERM", "sigterm", "15"])
def test_a_signal_is_named_as_users_name_it(word: str) -> None:
    """By its name, with or without SIG, or by its number."""
    assert parse(["--parent-death-signal", word, "true"]).parent_death_signal == signal.SIGTERM
    assert parse(["true"]).parent_death_signal is None


def test_orphans_are_adopted_unless_told_otherwise() -> None:
    """The three words, and the first where none is given."""
    assert [parse([f"--subreaper={word}", "true"]).subreaper for word in SUBREAPER] == list(SUBREAPER)
    assert parse(["true"]).subreaper == "auto"


def test_the_help_has_every_option() -> None:
    """And says what the exit codes are."""
    for word in ("--grace", "--subreaper", *SUBREAPER, "--parent-death-signal", "--session", "--control-fd"):
        assert word in USAGE
    assert all(len(line) <= 120 for line in USAGE.splitlines())


def test_help_needs_nothing_else() -> None:
    """It is asked for even where the rest would not parse."""
    assert parse(["-h"]).help
    assert parse(["--grace", "2", "--help", "--nonsense"]).help


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "init needs a command to run, as in: coding-agents init -- COMMAND"),
        (["--"], "init needs a command to run, as in: coding-agents init -- COMMAND"),
        (["-x", "true"], "init has no option -x; put -- before a command that starts with a dash"),
        (["-", "true"], "init has no option -; put -- before a command that starts with a dash"),
        (["--grace"], "init's option --grace needs a value"),
        (["--grace", "soon", "true"], "init's option --grace needs seconds from 0 to 86400, not 'soon'"),
        (["--grace", "nan", "true"], "init's option --grace needs seconds from 0 to 86400, not 'nan'"),
        (["--grace=-1", "true"], "init's option --grace needs seconds from 0 to 86400, not '-1'"),
        (["--grace", "1e9", "true"], "init's option --grace needs seconds from 0 to 86400, not '1e9'"),
        (["--control-fd", "x"], "init's option --control-fd needs a descriptor's number, not 'x'"),
        (["--control-fd", "3", "true"], "init's option --control-fd goes with --session"),
        (["--grace", "1", "--session", "/s"], "init's option --grace does not go with --session"),
        (["--session", "/s", "--subreaper", "auto"], "init's option --subreaper does not go with --session"),
        (
            ["--parent-death-signal=15", "--session", "/s"],
            "init's option --parent-death-signal does not go with --session",
        ),
        (["--subreaper", "yes", "true"], "init's option --subreaper must be one of auto, always, never, not 'yes'"),
        *(
            (
                ["--parent-death-signal", word, "true"],
                f"init's option --parent-death-signal needs a signal that can tell init, such as TERM, not {word!r}",
            )
            for word in ("", "NONE", "0", "65", "-1", "STOP", "CHLD", "SIG", "²")
        ),
    ],
)
def test_what_does_not_parse_is_one_sentence(arguments: list[str], sentence: str) -> None:
    """Each names the option and what it wants."""
    with pytest.raises(InitUsageError) as refused:
        parse(arguments)
    assert str(refused.value) == sentence
