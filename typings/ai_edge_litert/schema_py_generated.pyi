# Here because ai-edge-litert ships no types: generated classes whose lists are None at first.
from typing import Any

def __getattr__(name: str) -> Any: ...
