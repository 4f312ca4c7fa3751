class Builder:
    Bytes: bytearray
    head: int
    def __init__(self, initialSize: int = 1024) -> None: ...  # noqa: N803
    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int: ...  # noqa: N802, N803
    def EndVector(self) -> int: ...  # noqa: N802
    def Finish(self, rootTable: int, file_identifier: bytes | None = None) -> int: ...  # noqa: N802, N803
    def Head(self) -> int: ...  # noqa: N802
