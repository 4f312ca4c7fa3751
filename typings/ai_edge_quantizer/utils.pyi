# Here because a stub of a package does not stand for its subpackages.
from typing import Any

def __getattr__(name: str) -> Any: ...
