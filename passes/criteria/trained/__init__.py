"""Criteria that ask for a training of their own before they score."""
