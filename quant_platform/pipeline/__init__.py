"""Bookkeeping around pure calculators: units of work, the ledger, the pool. No Dagster."""
