"""Folders of this machine: who may write into one, and how it changes all at once."""
