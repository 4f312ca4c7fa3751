"""--task, --metric and --output-weights become a task; --loss a function."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from shrinkc.compiler.support.choices import TaskName
from shrinkc.errors import InputError

if TYPE_CHECKING:
    from shrinkc.compiler.tasks.asked import AskedTask
    from shrinkc.compiler.tasks.task import Task

Field = Callable[[str], Any]
SAME = {"classification": "classify", "regression": "regress"}  # names of earlier versions


def yes(text: str) -> bool:
    """Of yes or no. Raises ValueError."""
    return ("no", "yes").index(text) == 1


FIELDS: dict[str, dict[str, Field]] = {  # that the command line can give, of each task
    "segment": {"ignore": int},
    "dense": {"by": str, "peak": float},
    "detect": {
        **{"layout": str, "form": str, "scale": str, "background": int},
        **{"overlap": float, "least": float, "sure": float, "nms": yes},
    },
}
_PLACE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def asked_of(task: str, metric: str | None = None, weights: str | None = None) -> AskedTask:
    """Raises InputError for a task or field that there is not, and for a metric that cannot be
    imported."""
    from shrinkc.compiler.tasks.asked import AskedTask, own_metric

    function = None if metric is None else function_of("metric", metric)
    return AskedTask(_task(task), own_metric(function, metric), _weights(weights))


def _task(text: str) -> Task | None:
    """'segment:ignore=0' and the like; None: told by the outputs."""
    from shrinkc.compiler.tasks.classification import Classification
    from shrinkc.compiler.tasks.dense import Dense
    from shrinkc.compiler.tasks.detection.detection import Detection
    from shrinkc.compiler.tasks.embedding import Embedding
    from shrinkc.compiler.tasks.regression import Regression
    from shrinkc.compiler.tasks.segmentation import Segmentation

    name, _, rest = text.partition(":")
    name = SAME.get(name, name)
    if name not in get_args(TaskName):
        raise InputError(f"`task` {name}: choose {', '.join(get_args(TaskName))}")
    given = _fields(name, rest)
    match name:
        case "classify":
            return Classification()
        case "segment":
            return Segmentation(**given)
        case "detect":
            return Detection(**given)
        case "regress":
            return Regression()
        case "embed":
            return Embedding()
        case "dense":
            return Dense(**given)
        case _:
            return None


def _fields(name: str, text: str) -> dict[str, Any]:
    known, found = FIELDS.get(name, {}), dict[str, Any]()
    for part in filter(None, text.split(",")):
        field, equals, value = part.partition("=")
        if field not in known or not equals:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"`task` {name}: no field {part}; {has}, each as FIELD=VALUE")
        try:
            found[field] = known[field](value)
        except ValueError:
            what = "neither yes nor no" if known[field] is yes else "no number"
            raise InputError(f"`task` {name}: {field} {value} is {what}; give one") from None
    return found


def _weights(text: str | None) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(map(float, text.split(",")))
    except ValueError:
        raise InputError(f"`output_weights` {text}: give numbers like 1,0.5") from None


def loss_of(loss: str | None) -> Any:
    """Of --loss. Raises InputError where it cannot be imported."""
    return None if loss is None else function_of("loss", loss)


def function_of(option: str, text: str) -> Any:
    """What `package.module:name` is, from the current folder too. Raises InputError."""
    from shrinkc.compiler.load.weights.architecture import imported

    match = _PLACE.fullmatch(text)
    if not match:
        raise InputError(f"`{option}` {text}: give package.module:function")
    module, name = match.groups()
    try:
        return getattr(imported(option, text, module), name)
    except AttributeError as error:
        raise InputError(f"`{option}` {text}: {module} has no {name}; check it") from error
