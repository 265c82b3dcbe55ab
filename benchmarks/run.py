"""`make bench`: run all benchmarks, or those named, and write RESULTS.md."""

import argparse
import importlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from _results import render, store

ROUNDS = 7
BENCHMARKS = [
    "bars",
    "bytes_per_tick",
    "ingest",
    "signing",
    "backfill",
    "demo",
    "order_flow",
    "order_book",
    "capture",
    "landing",
    "near_real_time",
    "option_greeks",
    "option_chains",
    "option_agreement",
    "tca",
    "tca_slo",
    "redis_keys",
    "live",
    "live_options",
]


def main() -> None:
    """Measure, store and render."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Example: python benchmarks/run.py bars --rounds 7")
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds that count (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="small inputs, one round, nothing stored")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    rounds = 1 if given.quick else given.rounds
    for name in given.names or BENCHMARKS:
        print(f"{name}: measuring", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        with TemporaryDirectory(prefix=f"bench-{name}-") as folder:
            result = importlib.import_module(name).measure(Path(folder), rounds=rounds, is_quick=given.quick)
        for row in result.measurements:
            print(f"  {row.group} {row.name}: {row.not_run or f'{row.median:.4g} {result.unit}'}")
        for verdict in result.verdicts:
            print(f"  {verdict.claim}: {verdict.measured} (floor {verdict.floor}, goal {verdict.goal})")
        if rounds < ROUNDS:
            print(f"  not stored: fewer than {ROUNDS} rounds")
        else:
            store(
                name,
                result,
                rounds=rounds,
                command=f"python benchmarks/run.py {name} --rounds {rounds}",
                date=datetime.now(UTC).date().isoformat(),
                load=load,
            )
            print(f"  written to {render(BENCHMARKS)}")


if __name__ == "__main__":
    main()
