"""The benchmarks are for `make bench`, which takes minutes; that each part can be loaded is seen here."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "integration" / "bench"


def test_every_part_of_the_benchmark_can_be_loaded_as_make_bench_does() -> None:
    """Isolated, by the same code, without running any."""
    listing = f"import sys; sys.path.insert(0, {str(BENCH)!r}); import run; print(len(list(run.parts())))"
    done = subprocess.run([sys.executable, "-I", "-c", listing], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
