"""Venues' formats in, contract frames out. No analytics, no orchestration."""
