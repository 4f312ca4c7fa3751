# Here because ai-edge-quantizer ships no types, nor does any package of stubs.
from typing import Any

def __getattr__(name: str) -> Any: ...
