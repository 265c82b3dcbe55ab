"""Trading-analytics data platform: one module a floor, imports go down only (docs/architecture.md)."""
