# Here because flatbuffers ships no types, and those inferred from its code are partly unknown.
from typing import Any

def __getattr__(name: str) -> Any: ...
