# Here because scipy ships no types; of scipy.sparse one or two functions are used.
from typing import Any

def __getattr__(name: str) -> Any: ...
