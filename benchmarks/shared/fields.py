"""Every field that a result file may hold, with its unit.

A name means the same in every file. Shares and differences of shares are fractions, never
percentages; milliseconds end in `_ms`; a speedup is the original's time over the new one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# A path of the machine that measured; a bare "/" or "a/b" (rpi4/int8, LIBRARY/NAME) is none.
_MACHINE_PATH = re.compile(r"(?:^|[\s\"'(=:])(?:~|[A-Z]:\\|/(?:[\w.-]+/))")


class FieldError(Exception):
    """A value that its field's unit does not allow, or a field that no list knows."""


@dataclass(frozen=True)
class Unit:
    """`holds` tells whether a single value may stand in a field of this unit."""

    name: str
    holds: Callable[[Any], bool]

    def check(self, value: Any, where: str) -> None:
        """Raises FieldError."""
        if not self.holds(value):
            raise FieldError(f"{where}: {value!r} is not {self.name}")


@dataclass(frozen=True)
class Several:
    """A list of values, or a mapping from names that are no fields, such as precisions."""

    unit: Unit | Several

    def check(self, value: Any, where: str) -> None:
        """Raises FieldError."""
        if isinstance(value, Mapping):
            for name, one in value.items():
                self.unit.check(one, f"{where}.{name}")
        elif isinstance(value, list):
            for one in value:
                self.unit.check(one, f"{where}[]")
        else:
            raise FieldError(f"{where}: {value!r} is neither a list nor a mapping")


@dataclass(frozen=True)
class Record:
    """Fields again; `several`: a list of records, or a mapping from names to records."""

    several: bool = False

    def check(self, value: Any, where: str) -> None:
        """Raises FieldError."""
        if not self.several:
            check_record(value, where)
        elif isinstance(value, Mapping):
            for name, one in value.items():
                check_record(one, f"{where}.{name}")
        else:
            for one in value:
                check_record(one, f"{where}[]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _within(low: float, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and low <= value <= high


TEXT = Unit("text without a path", lambda v: isinstance(v, str) and not _MACHINE_PATH.search(v))
FLAG = Unit("true or false", lambda v: isinstance(v, bool))
COUNT = Unit("a count", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0)
SHARE = Unit("a share between 0 and 1", _within(0, 1))
CHANGE = Unit("a difference of two shares, between -1 and 1", _within(-1, 1))
ERROR = Unit("a relative error, 0 or more", _within(0))
RATIO = Unit("a ratio, above 0", lambda v: _is_number(v) and v > 0)
CORRELATION = Unit("a correlation between -1 and 1", _within(-1, 1))
MS = Unit("milliseconds", _is_number)  # savings may be negative
SECONDS = Unit("seconds", _within(0))
MEGABYTES = Unit("megabytes of 1e6 bytes", _within(0))
NATS = Unit("nats", _is_number)
DECIBELS = Unit("decibels", _is_number)
NUMBER = Unit("a number", _is_number)
WITH_UNIT = Unit("in a row with its `unit`", lambda _: False)


def _or_none(unit: Unit) -> Unit:
    return Unit(f"{unit.name}, or null", lambda v: v is None or unit.holds(v))


FIELDS: Mapping[str, Unit | Several | Record] = {
    # --- what was measured
    **dict.fromkeys(("network", "library", "name", "method", "criterion", "mode", "moves"), TEXT),
    **dict.fromkeys(("tool", "settings", "by", "runtime", "precision", "target", "table"), TEXT),
    **dict.fromkeys(("file", "int8_tuning", "goal", "kinds", "captured_by", "peer_tool"), TEXT),
    **dict.fromkeys(("verified_on", "failure", "family", "length"), TEXT),
    "notes": Several(TEXT),
    "stopped": _or_none(TEXT),
    "errors": Several(TEXT),  # by stage
    "peers": Several(Several(TEXT)),  # pinned requirements by tool
    "options": Several(TEXT),
    # --- accuracy
    **dict.fromkeys(("top1", "top1_int8"), SHARE),
    "agreement": _or_none(SHARE),  # where answers are no classes there is none
    **dict.fromkeys(("original_top1", "untrained_top1", "held_out_top1"), SHARE),
    **dict.fromkeys(("drop", "promised_drop", "asked_drop"), CHANGE),
    "interval": Several(CHANGE),  # of a drop, with 95% confidence
    **dict.fromkeys(("divergence", "loss"), NATS),
    "snr_db": DECIBELS,
    "labelled": FLAG,
    "metric": TEXT,
    **dict.fromkeys(("score", "original_score", "mean_absolute_error"), NUMBER),  # of the metric
    **dict.fromkeys(("promised", "delivered"), Record()),
    "rivals": Record(several=True),  # by command
    **dict.fromkeys(("closed_form", "distilled", "int8", "original_int8"), Record()),
    "kept": Several(FLAG),  # by promise
    # --- errors relative to what is right
    **dict.fromkeys(("max_relative_error", "fit_error", "difference"), ERROR),
    **dict.fromkeys(("folded_error", "onnx_error", "tflite_error", "masked_error"), ERROR),
    "merged_error": ERROR,
    "float32_error": _or_none(ERROR),
    **dict.fromkeys(("mean_error", "worst_error"), ERROR),  # of predicted times
    **dict.fromkeys(("network_held_out_error", "family_held_out_error"), ERROR),
    "blocks_in_fit_error": ERROR,
    "spearman": CORRELATION,
    # of outputs: squared error over variance, with 95% confidence; of the column that suffers most
    **dict.fromkeys(("promised_error", "error_on_others"), ERROR),
    **dict.fromkeys(("worst_column", "worst_column_on_others"), ERROR),
    **dict.fromkeys(("error_interval", "worst_column_interval"), Several(ERROR)),
    "damages": Several(ERROR),  # of a plan, by output
    **dict.fromkeys(("inside", "worst_column_inside"), SHARE),  # of groups of other images
    # --- speed
    **dict.fromkeys(("asked_speedup", "table_speedup", "speedup", "speedup_in_runtime"), RATIO),
    "int8_speedup": RATIO,  # of int8 alone, over fp32
    "asked_over_exact": RATIO,  # over the unchanged network in its faster precision
    **dict.fromkeys(("asked_latency", "latency"), RATIO),  # of the original's time
    **dict.fromkeys(("ratio", "ratio_min", "ratio_max", "factor"), RATIO),
    "rounds_speedup": Several(RATIO),
    "predicted_speedups": Several(RATIO),  # by device/precision
    **dict.fromkeys(("median_ms", "iqr_ms", "before_ms", "after_ms", "saving_ms"), MS),
    **dict.fromkeys(("measured_ms", "predicted_ms", "budget_ms", "original_ms"), MS),
    **dict.fromkeys(("ours_ms", "ours_iqr_ms", "peer_ms", "peer_iqr_ms"), MS),
    "measured": Record(several=True),  # by precision
    "depthwise_us_per_mmac": NUMBER,
    # --- cost of making it
    **dict.fromkeys(("seconds", "cpu_seconds", "group_seconds", "prune_seconds"), SECONDS),
    **dict.fromkeys(("damages_seconds", "int8_seconds", "solving_seconds"), SECONDS),
    "stage_seconds": Several(SECONDS),
    "peak_mb": MEGABYTES,
    # --- what was done
    "taken": Record(several=True),
    **dict.fromkeys(("source", "sink", "kind"), TEXT),
    **dict.fromkeys(("channels", "channels_before"), COUNT),
    **dict.fromkeys(("macs", "kept_channels"), SHARE),
    **dict.fromkeys(("learning_rate", "weight"), NUMBER),
    **dict.fromkeys(("seed", "steps", "epochs", "search_epochs", "rebuild_steps"), COUNT),
    **dict.fromkeys(("threads", "rounds", "runs", "images"), COUNT),
    **dict.fromkeys(("bytes", "parameters", "nodes", "operators", "merges"), COUNT),
    **dict.fromkeys(("convolutions", "protected_channels", "networks", "outputs", "output"), COUNT),
    **dict.fromkeys(("groups", "groups_inside", "groups_worst_column_inside"), COUNT),
    # before and after; by precision; by reason
    **dict.fromkeys(("batch_norm_counts", "channel_counts", "parameter_counts"), Several(COUNT)),
    **dict.fromkeys(("choices", "slices", "kept_batch_norms"), Several(COUNT)),
    # --- stages of a coverage run: whether they were passed
    **dict.fromkeys(("captured", "folded", "onnx", "tflite", "pruned", "masked", "saved"), FLAG),
    **dict.fromkeys(("attention", "dynamic_batch", "planned"), FLAG),
    "peer": Record(),
    # --- measures with a bar: in the row's `unit`, see MEASURE_UNITS
    "measure": TEXT,
    **dict.fromkeys(("reached", "bar", "unit"), WITH_UNIT),
    **dict.fromkeys(("higher_is_better", "met"), FLAG),
}

# What `unit` may say of `reached` and `bar` in the same row.
MEASURE_UNITS: Mapping[str, Unit] = {"error": ERROR, "share": SHARE, "ms": MS, "rank": CORRELATION}


def check_record(record: Any, where: str) -> None:
    """Raises FieldError for the first field that FIELDS does not know or whose value is wrong."""
    if not isinstance(record, Mapping):
        raise FieldError(f"{where}: {record!r} is not a record")
    own: dict[str, Unit] = {}
    if "unit" in record:
        unit = MEASURE_UNITS.get(record["unit"])
        if unit is None:
            raise FieldError(f"{where}.unit: {record['unit']!r} is not in MEASURE_UNITS")
        own = {"unit": TEXT, "reached": unit, "bar": _or_none(unit)}
    for name, value in record.items():
        if name not in FIELDS:
            raise FieldError(f"{where}: {name} is not in benchmarks/shared/fields.py")
        own.get(name, FIELDS[name]).check(value, f"{where}.{name}")
