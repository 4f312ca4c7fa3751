import enum
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from numpy.typing import NDArray

class OpResolverType(enum.Enum):
    AUTO = 0
    BUILTIN = 1
    BUILTIN_REF = 2
    BUILTIN_WITHOUT_DEFAULT_DELEGATES = 3

class TensorDetails(TypedDict):
    name: str
    index: int
    shape: NDArray[Any]
    shape_signature: NDArray[Any]
    dtype: type[Any]
    quantization: tuple[float, int]
    quantization_parameters: dict[str, Any]
    sparsity_parameters: dict[str, Any]

class OperatorDetails(TypedDict):
    index: int
    op_name: str
    inputs: NDArray[Any]
    outputs: NDArray[Any]

class SignatureRunner:
    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]: ...
    def get_input_details(self) -> dict[str, TensorDetails]: ...
    def get_output_details(self) -> dict[str, TensorDetails]: ...

class Interpreter:
    def __init__(
        self,
        model_path: str | None = None,
        model_content: bytes | None = None,
        experimental_delegates: list[Any] | None = None,
        num_threads: int | None = None,
        experimental_op_resolver_type: OpResolverType = ...,
        experimental_preserve_all_tensors: bool = False,
        experimental_disable_delegate_clustering: bool = False,
        experimental_default_delegate_latest_features: bool = False,
    ) -> None: ...
    def allocate_tensors(self) -> None: ...
    def invoke(self) -> None: ...
    def get_input_details(self) -> list[TensorDetails]: ...
    def get_output_details(self) -> list[TensorDetails]: ...
    def get_tensor_details(self) -> list[TensorDetails]: ...
    def _get_ops_details(self) -> list[OperatorDetails]: ...
    def set_tensor(self, tensor_index: int, value: NDArray[Any]) -> None: ...
    def get_tensor(self, tensor_index: int, subgraph_index: int = 0) -> NDArray[Any]: ...
    def tensor(self, tensor_index: int) -> Callable[[], NDArray[Any]]: ...
    def resize_tensor_input(
        self, input_index: int, tensor_size: list[int], strict: bool = False
    ) -> None: ...
    def get_signature_list(self) -> Mapping[str, Mapping[str, list[str]]]: ...
    def get_signature_runner(self, signature_key: str | None = None) -> SignatureRunner: ...
