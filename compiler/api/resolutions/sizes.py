"""A user's network at the sizes of `resolutions`: which it takes, and the same network there."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkc.compiler.api.steps.network import Model, Subject, subject_of
from shrinkc.compiler.capture.at_size import require_same_network
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.augment import Size, scaled
from shrinkc.compiler.images.source import ImageSource
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.support.checks import check_whole, listed
from shrinkc.errors import CaptureError, ExportError, InputError, ModelRunError

STEP = 16  # of the sizes that are tried where one is not taken


def smaller_sizes(given: Sequence[int] | None, subject: Subject) -> tuple[Size, ...]:
    """(height, width) of each of `resolutions` but the network's own, which is always there, the
    largest first. Raises InputError for what is no size of smaller images."""
    if given is None:
        return ()
    sides = set[int](listed("resolutions", given, object, "whole numbers"))
    if not sides:
        raise InputError("`resolutions` names no size", "give some, such as 192,160 for 224")
    for side in sides:
        check_whole("resolutions", side, 1)
    own = _own_size(subject)
    found = [_size(side, own) for side in sorted(sides, reverse=True) if side != min(own)]
    if not found:
        raise InputError(
            f"`resolutions`: {_told(own)} is the network's own size",
            "give smaller ones, such as 192,160 for 224",
        )
    return tuple(found)


def at_size(model: Model, subject: Subject, size: Size) -> Subject:
    """`subject`, which `model` was given for, for images of another size; captured. Raises
    InputError where that is not the same network."""
    (x,) = subject.inputs
    try:
        found = subject_of(model, (scaled(x, size),), subject.name)
        require_same_network(subject.graph, found.graph)
        lower(deployed(found.graph))
    except (CaptureError, ExportError, ModelRunError) as error:
        raise _not_taken(subject, size, error.message) from error
    except InputError as error:  # of a file that is made for one size
        raise InputError(f"`resolutions` {_told(size)}: {error}") from error
    return found


def require_resizable(source: ImageSource | None, parameter: str) -> None:
    """Raise InputError for images whose labels lie on them."""
    kind = None if source is None else source.kind
    if source is not None and (kind in ("masks", "boxes") or source.annotations is not None):
        raise InputError(
            f"`resolutions`: the labels of `{parameter}` are {kind}, which belong to one size of "
            "the image",
            "leave `resolutions` out",
        )


def _own_size(subject: Subject) -> Size:
    """(height, width). Raises InputError for a network that reads no images, or several."""
    x, *others = subject.inputs
    if others or x.ndim != 4 or not x.is_floating_point():
        held = " and ".join("×".join(map(str, shape)) for shape in subject.input_shapes)
        raise InputError(
            f"`resolutions` are for networks that read one image (N, C, height, width), not {held}",
            "leave `resolutions` out",
        )
    return x.shape[2], x.shape[3]


def _size(side: int, own: Size) -> Size:
    """With `side` as the shorter one, of the same shape. Raises InputError."""
    if side > min(own):
        raise InputError(
            f"`resolutions` {side} is above the network's own size, {_told(own)}; give less"
        )
    height, width = (side * one / min(own) for one in own)
    if height != int(height) or width != int(width):
        raise InputError(
            f"`resolutions` {side}: the longer side would be {max(height, width):.4g} pixels of "
            f"{max(own)}; give sizes at which both are whole"
        )
    return int(height), int(width)


def _not_taken(subject: Subject, size: Size, reason: str) -> InputError:
    """With the sizes that it runs at and returns the same shapes."""
    own = _own_size(subject)
    tried = [_size(s, own) for s in range(STEP, min(own), STEP) if s * max(own) % min(own) == 0]
    taken = [_told(one) for one in reversed(tried) if one != size and _runs(subject, one)]
    hint = f"of the multiples of {STEP} it takes {', '.join(taken) or 'none'}"
    return InputError(f"`resolutions` {_told(size)}: {reason}", hint)


def _runs(subject: Subject, size: Size) -> bool:
    (x,) = subject.inputs
    try:
        found = subject.reference((scaled(x, size),))
    except ModelRunError:
        return False
    own = subject.reference(subject.inputs)
    return [one.shape for one in found] == [one.shape for one in own]


def _told(size: Size) -> str:
    return "×".join(map(str, size))
