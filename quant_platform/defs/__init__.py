"""The Dagster code location: assets, checks, jobs, schedules and resources. No calculation."""
