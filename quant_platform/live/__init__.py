"""The live clock: capture from the venues, and what is served from it. Neither imports Dagster."""
