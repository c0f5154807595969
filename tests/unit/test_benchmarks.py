"""The benchmarks are for `make bench`, which takes minutes; how they judge, read and write is seen here."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import pki
from bench import profile, report, trust, wrk
from bench.results import Budget, Figure, Judged, Part, Table, differences, ratios

BENCH = Path(__file__).resolve().parents[2] / "integration" / "bench"
FASTER = Budget(what="faster", must=0.6, aim=0.75, more_is_better=True)
SMALLER = Budget(what="smaller", must=4.5, aim=2.5, unit="MB")
WRK = """\
Running 60m test @ http://127.0.0.1:1/mcp
  Latency Distribution
     50%   12.00us
     75%    1.10ms
     90%    2.00ms
     99%    1.50s
  1176 requests in 612.76ms, 266.44KB read
Requests/sec:   1919.19
"""
PERF = """\
# Overhead  Shared Object
    46.81%  python3.11
    27.97%  [kernel.kallsyms]
     8.26%  loop.cpython-311-x86_64-linux-gnu.so
     6.65%  libcrypto.so.3
     1.00%  libsurprise.so
"""


def test_every_part_of_the_benchmark_can_be_loaded_as_make_bench_does() -> None:
    """Isolated, by the same code, without running any."""
    listing = (
        f"import sys; sys.path.insert(0, {str(BENCH)!r}); import run; "
        "print(*(name for name in run.PROXIES + run.OTHERS if callable(run.load(name).measure)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", listing], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"rates", "trust", "exec", "starts", "init"} <= set(done.stdout.split())


def test_a_wrong_part_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(BENCH / "run.py"), "rate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "rate: not one of rates, streams," in done.stderr
    assert "Traceback" not in done.stderr


def test_targets_are_compared_within_rounds() -> None:
    """A slow round is slow for both: the ratio of the medians would say 1.5 here."""
    assert ratios([2.0, 20.0, 3.0], [1.0, 10.0, 2.0]) == Figure(2.0, 1.5, 2.0)
    assert differences([5.0, 7.0], [1.0, 2.0]) == [4.0, 5.0]


def test_rounds_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("budget", "found", "verdict"),
    [
        (FASTER, 0.59, "MISSED"),
        (FASTER, 0.6, "must met"),
        (FASTER, 0.75, "aim met"),
        (SMALLER, 4.51, "MISSED"),
        (SMALLER, 4.5, "must met"),
        (SMALLER, 2.5, "aim met"),
        (SMALLER, 2.504, "aim met"),  # as it is shown
    ],
)
def test_a_budget_is_judged_by_the_median(budget: Budget, found: float, verdict: str) -> None:
    judged = Judged(budget, Figure(found, 0.0, 100.0))
    assert judged.verdict == verdict
    assert judged.met == (verdict != "MISSED")


def test_a_budget_is_shown_with_its_range_bounds_and_unit() -> None:
    assert Judged(SMALLER, Figure(3.0, 2.9, 3.25)).cells() == [
        "smaller", "3.00 (2.90 to 3.25) MB", "≤ 4.5 MB", "≤ 2.5 MB", "must met",
    ]  # fmt: skip
    assert Judged(FASTER, Figure(1.0, 1.0, 1.0)).cells()[2:4] == ["≥ 0.6", "≥ 0.75"]


def test_what_wrk_prints_is_read() -> None:
    assert wrk.parse(WRK) == (1176, 1919.19, 12.0, 1_500_000.0)


@pytest.mark.parametrize(
    "output",
    [
        WRK + "  Non-2xx or 3xx responses: 1\n",
        WRK + "  Socket errors: connect 0\n",
        "",
        WRK.replace("1176 requests", "0 requests"),
    ],
)
def test_a_load_with_failures_is_no_figure(output: str) -> None:
    with pytest.raises(RuntimeError):
        wrk.parse(output)


def test_the_shares_of_a_profile_are_sorted_by_kind() -> None:
    assert profile.shares(PERF) == {
        "kernel": 27.97,
        "TLS library": 6.65,
        "event loop (uvloop)": 8.26,
        "interpreter, with libc and msgspec": 46.81,
        "the program itself": 0.0,
        "other": 1.0,
    }


def test_the_contexts_of_compared_handshakes_trust_alike_and_check_what_they_are_named_for() -> None:
    """Anchors loaded, the server that all accept, and one of the same root that only a pinned leaf tells apart."""
    root = pki.make_root()
    leaf, impostor = (root.issue((trust.HOST,)) for _ in range(2))
    compared = trust.contexts(pki.make_root("Other Root").pem, leaf, root)
    assert [context.cert_store_stats()["x509"] for context in compared.values()] == [2, 2, 1]
    for context in compared.values():
        assert trust.handshake(context, trust.serving(leaf, "1.2")) > 0
    plain, pinned, narrowed = compared.values()
    for context in (plain, narrowed):
        trust.handshake(context, trust.serving(impostor, "1.3"))
    with pytest.raises(ssl.SSLCertVerificationError, match="carries none of the pins"):
        trust.handshake(pinned, trust.serving(impostor, "1.3"))


def test_the_document_has_budgets_remarks_and_every_table() -> None:
    table = Table(["target", "req/s"], [["a|b", "1"], ["helper", "20"]])
    part = Part("Requests", "As it was measured.", [table], [Judged(FASTER, Figure(0.5, 0.4, 0.6))])
    text = report.document([part], [["Python", "3.11"]], "2026-11-24", "It is slow.\n")
    assert "## Machine and versions, 2026-11-24\n\n| what | which |\n| --- | --- |\n| Python | 3.11 |\n" in text
    assert "| faster | 0.50 (0.40 to 0.60) | ≥ 0.6 | ≥ 0.75 | MISSED |" in text
    assert "## What falls short, and why\n\nIt is slow.\n" in text
    assert "## Requests\n\nAs it was measured.\n\n| target | req/s |\n| --- | --- |\n| a\\|b | 1 |\n" in text
    assert "falls short" not in report.document([part], [], "2026-11-24", "")


def test_a_table_in_a_pipe_is_aligned() -> None:
    assert report.plain(Table(["what", "n"], [["a", "100"], ["longer", "2"]])) == "what    n\na       100\nlonger  2"
