"""What a pickled model may name: the question "may this class exist?", asked before it does.

Only model code that the user has installed is ever imported, and never because a file names a
new module: the module must lie below one of PACKAGES, and the package must be the one that its
distribution installed (not a folder of that name next to the model file). Names of anything else
(`os.system`, `builtins.eval`, the user's own classes) are refused without being looked up.

The classes that pass are data holders here: `shrinkc.compiler.rebuild` never calls them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, cast

import torch.nn.functional as F
from torch import fx, nn

from shrinkc.compiler.support.text import one_line

# Where model classes live. The rest of these packages (data sets, hubs, command lines) stays shut.
PACKAGES = (
    "torch.nn.modules",
    "torchvision.models",
    "torchvision.ops",
    "timm.models",
    "timm.layers",
    "pytorchcv.models",
    "transformers.models",
    "transformers.activations",
    "transformers.configuration_utils",
    "transformers.generation.configuration_utils",
    "transformers.modeling_layers",
    "transformers.modeling_outputs",
    "transformers.pytorch_utils",
)

# Activations that a module may hold as an attribute: numbers in, numbers out, nothing else.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"torch.nn.functional.{name}": getattr(F, name)
        for name in (
            *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "sigmoid"),
            *("tanh", "hardtanh", "hardsigmoid", "hardswish", "softmax", "log_softmax"),
        )
    },
    "torch._C._nn.gelu": F.gelu,
    "torch._C._nn.softplus": F.softplus,
    "torch._C._nn.log_sigmoid": F.logsigmoid,
    "torch._C._nn.relu6": F.relu6,
}

# What torch's own unpickler allows and a saved network needs. Everything else that it allows
# (arrays from NumPy, nested, sparse, quantised and meta tensors, bytearray) is left out.
PLAIN = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "__builtin__.set",
        "builtins.set",
        "_codecs.encode",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
    }
)
# Settings in OmegaConf's classes (Hydra), and what those name of Python's.
_OMEGACONF = (
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "UnionNode")),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
    ),
    *("typing.Any", "collections.defaultdict"),
    *(
        f"__builtin__.{name}"
        for name in ("bool", "bytes", "dict", "float", "int", "list", "long", "str", "unicode")
    ),
)
# What checkpoints carry beside the weights: kept as an inert record that nothing ever reads.
IGNORED = frozenset(
    {
        "argparse.Namespace",
        "numpy.dtype",
        "numpy.ndarray",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        *_OMEGACONF,
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    }
)
# Dictionaries of settings: read as a plain one.
DICTIONARIES = frozenset(
    {
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning.pytorch.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "yacs.config.CfgNode",
    }
)
_PLAIN_PATTERN = re.compile(
    r"torch\.((float|bfloat|complex|u?int)\d+|float8_\w+|bool|[A-Z][A-Za-z0-9]+Storage)"
)
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)

_CONFIGURATIONS = {
    "transformers.configuration_utils.PretrainedConfig",
    "transformers.configuration_utils.PreTrainedConfig",
    "transformers.generation.configuration_utils.GenerationConfig",
}

Kind = Literal["module", "record", "enum", "tuple", "function", "partial"]


class Allowed(NamedTuple):
    """A thing that a file may name. "record": its attributes are data (configurations)."""

    kind: Kind
    value: Any


class Refused(NamedTuple):
    """Why a file may not name it, as the end of the sentence "it names x, …"."""

    reason: str
    missing: bool = False  # not unsafe, just not there


def is_plain(name: str) -> bool:
    """Torch's unpickler makes it by itself: containers, tensors, data types."""
    return name in PLAIN or _PLAIN_PATTERN.fullmatch(name) is not None


def look_up(name: str) -> Allowed | Refused:
    """Judge one dotted global of a pickle; imports only what PACKAGES covers."""
    if name in _FUNCTIONS:
        return Allowed("function", _FUNCTIONS[name])
    if name.startswith("torch._utils._rebuild_"):
        return Refused(
            "for a tensor of a kind (quantised, sparse, 8-bit float, empty) that is not supported",
            True,
        )
    if name == "functools.partial":
        return Allowed("partial", functools.partial)
    module_name, _, attribute = name.rpartition(".")
    if name == "torch.nn.parallel.data_parallel.DataParallel":
        return Allowed("module", nn.DataParallel)
    if not _NAME.fullmatch(name) or not _covered(module_name):
        return Refused("which is no class of torch.nn or of a known model library")
    module = _import(module_name)
    if isinstance(module, Refused):
        return module
    return _judge(vars(module).get(attribute))


def _covered(module_name: str) -> bool:
    return any(module_name == p or module_name.startswith(p + ".") for p in PACKAGES)


def _import(module_name: str) -> ModuleType | Refused:
    package = module_name.partition(".")[0]
    if package != "torch" and not _is_installed(package):
        return Refused(f"but {package} is not installed here (pip install {package})", True)
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # an installed library may fail in any way
        return Refused(f"which the installed {package} cannot provide ({one_line(error)})", True)


@functools.cache
def _is_installed(package: str) -> bool:
    """A distribution of that name owns the file that `import package` would run."""
    try:
        owned = importlib.metadata.distribution(package).locate_file(f"{package}/__init__.py")
    except importlib.metadata.PackageNotFoundError:
        return False
    loaded = sys.modules.get(package)
    spec = loaded.__spec__ if loaded else importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).resolve() == Path(str(owned)).resolve()


def _judge(value: Any) -> Allowed | Refused:
    if not inspect.isclass(value):
        return Refused("which the installed version does not have", True)
    if not _covered(value.__module__):  # something that the module only imports
        return Refused("which is no class of a known model library")
    if issubclass(value, fx.GraphModule):
        return Refused("whose loading runs Python source from the file")
    if issubclass(value, nn.Module):
        return _with_own_state("module", value)
    if issubclass(value, enum.Enum):
        return Allowed("enum", value)
    fields: Any = getattr(value, "_fields", None)
    if issubclass(value, tuple) and isinstance(fields, tuple):
        return Allowed("tuple", cast(Any, value))
    if _is_record(value):
        return _with_own_state("record", value)
    return Refused("which is neither a module nor a configuration")


def _with_own_state(kind: Kind, value: Any) -> Allowed | Refused:
    """Unpickling it may run no code but torch.nn's, which only fills in missing attributes."""
    setters = [base.__module__ for base in value.__mro__ if "__setstate__" in vars(base)]
    if all(module.startswith("torch.nn.modules.") for module in setters):
        return Allowed(kind, value)
    return Refused("which has unpickling code of its own")


def _is_record(value: Any) -> bool:
    if dataclasses.is_dataclass(value):
        return True
    names = {f"{base.__module__}.{base.__name__}" for base in value.__mro__}
    return not names.isdisjoint(_CONFIGURATIONS)
