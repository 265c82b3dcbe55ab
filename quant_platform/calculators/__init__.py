"""Pure functions from frames to frames. No I/O, no clock, no Dagster, no loop over symbols."""
