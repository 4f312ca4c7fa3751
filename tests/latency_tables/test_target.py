import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.target import Target


@pytest.mark.parametrize("text", ["rpi4", "rpi4/tflite-xnnpack", "pixel4/tflite_2.10"])
def test_a_target_prints_as_it_is_typed(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize("text", ["", "/", "rpi4/", "Rpi4", "../data", "a/b/c", "rpi 4", "rpi4\n"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="is not a target"):
        Target.parse(text)
