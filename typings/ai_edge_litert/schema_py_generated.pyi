from typing import Any

# Generated code of 20,000 untyped lines: enumerations of ints, and classes whose attributes are
# the schema's fields.
def __getattr__(name: str) -> Any: ...
