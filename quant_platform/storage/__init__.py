"""Where data rests: the lake, the quarantine, the warehouse. No calculation, no orchestration."""
