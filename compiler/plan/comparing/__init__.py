"""Candidates of one plan, fitted quickly and compared."""
