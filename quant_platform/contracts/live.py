"""What the live writer served, and how far it was from what the batch makes of the same rows."""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, count, flag, identifier, instant, real, text


class LiveValue(Contract):
    """A sample of what the live writer served; one row a payload."""

    table: ClassVar[str] = "live/values"
    sorted_by: ClassVar[tuple[str, ...]] = ("line",)

    line = count("Its line in the date's archive, from 1: the order of serving.")
    ts_written = instant("Our clock when it was written.")
    ts_event = instant("Market time of what it says: its `ts`.")
    symbol = text("The platform's unique name of the instrument.")
    metric = text("Which metric, as settings name it.")
    seq = count("Number of the payload since the symbol was started.")
    last_trade_id = identifier("Last id of the last trade it includes; null where no trades feed it.", nullable=True)
    sequence = identifier("The venue's id of the last update of the book; null where trades feed it.", nullable=True)
    has_gap = flag("Whether trades were missing from what it was computed of.")
    payload = text("The payload, JSON.")
    ts_known = instant("`ts_written`, or the latest receipt of what it used where our clock went back between them.")


class LiveParity(Contract):
    """Served values against the same folds stepped again over the captured rows; one row a metric.

    Those of option chains are held against the rows of the snapshot of the same time. A difference is |a - b| ÷ the
    larger of both, and 1 where one of them is null or a label or count differs. Samples of a metric of which the batch
    has neither a fold nor rows are counted, and not judged.
    """

    table: ClassVar[str] = "live/parity"
    sorted_by: ClassVar[tuple[str, ...]] = ("metric",)

    ts_start = instant("Market time of the first sample.")
    ts_end = instant("Market time of the last sample.")
    symbol = text("The platform's unique name of the instrument.")
    metric = text("Which metric, as settings name it.")
    samples = count("Payloads archived.")
    compared = count("Samples judged: they say that nothing was missing.")
    with_gap = count("Samples that say that trades were missing: not judged.")
    before_open = count("Samples of a value from before the session: not judged.")
    missing = count("Samples whose last trade, update of the book, or snapshot of the chain was never captured.")
    restarts = count("How often `seq` went back.")
    fields = count("Fields compared in a sample, at most.")
    differing = count("Samples judged of which a field differs by more than the tolerance.")
    max_difference = real(
        "Largest difference to the rows as received; null without any.", unit="1", nullable=True, min=0
    )
    worst_field = text("Where that is.", nullable=True)
    worst_id = identifier("Trade id, sequence, or time of the chain's snapshot, of that sample.", nullable=True)
    worst_served = text("What was served there.", nullable=True)
    worst_computed = text("What the folds give there.", nullable=True)
    max_final_difference = real(
        "Largest difference to the date as it ended, late rows in their places, of all samples; not judged.",
        unit="1",
        nullable=True,
        min=0,
    )
    ts_known = instant("When the last sample was served.")
