"""Commands about what lies on this machine."""
