"""An archived snapshot of an option chain to rows, whichever venue's it is. Each venue's answers have a module.

Cboe's is one answer, named `chain` (JSON) or `sheet` (the CSV of its web page); Deribit's are `instruments`,
`summaries`, and `ticker/<contract>` for each contract whose ticker was asked for.
"""

import datetime as dt

from quant_platform.feeds import cboe, deribit
from quant_platform.feeds.option_chain import ChainError
from quant_platform.feeds.recorded import Parsed
from quant_platform.storage.chain_archive import Snapshot

CHAIN, SHEET = "chain", "sheet"
INSTRUMENTS, SUMMARIES, TICKER = "instruments", "summaries", "ticker/"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def rows_of(feed: str, snapshot: Snapshot, *, symbol: str) -> Parsed:
    """Return the rows of a snapshot, all of one `ts_event`, as the venue's module does.

    Args:
        feed: `cboe` or `deribit`.
        snapshot: What the venue answered.
        symbol: The platform's name of the underlying.

    Raises:
        ChainError: It cannot be used: nothing of it is.
    """
    answers, received = snapshot.answers, None
    if snapshot.ts_recv_ns is not None:
        received = _EPOCH + dt.timedelta(microseconds=snapshot.ts_recv_ns // 1000)
    if feed == deribit.VENUE and INSTRUMENTS in answers:
        tickers = [answer for name, answer in answers.items() if name.startswith(TICKER)]
        return deribit.read_chain(
            answers[INSTRUMENTS], answers.get(SUMMARIES), tickers, symbol=symbol, ts_recv=received
        )
    if feed == cboe.VENUE and CHAIN in answers:
        content, source = answers[CHAIN]
        return cboe.read_json(content, source, symbol=symbol, ts_recv=received)
    if feed == cboe.VENUE and SHEET in answers:
        content, source = answers[SHEET]
        return cboe.read_sheet(content, source, symbol=symbol, ts_recv=received)
    raise ChainError(
        f"A snapshot of {symbol} holds {', '.join(answers) or 'nothing'}, which is no chain of {feed}. Delete its file."
    )
