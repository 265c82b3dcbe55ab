"""Claim: the live writer does what `live` asks of it also where 20 symbols have a chain of 2,000 contracts each."""

from pathlib import Path

from _harness import Result
from live import measured

CHAINS = 20


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Run the benchmark `live` once more, with chains that are renewed at the poll's interval."""
    del rounds  # one long run: its cycles are the samples
    return measured(folder, is_quick=is_quick, chains=CHAINS // (10 if is_quick else 1))
