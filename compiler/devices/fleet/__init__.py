"""Many boards at once: the file that lists them, their threads, and which of them differ."""
