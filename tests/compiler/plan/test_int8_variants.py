"""What int8 is helped with, by what a made-up network loses."""

from __future__ import annotations

import pytest

from shrinkc.compiler.plan.int8_variants import ENOUGH, Int8Damage, int8_variants
from shrinkc.compiler.quantise.options import Int8

NOISE = {"a": 30.0, "b": 12.0, "c": 40.0, "d": 8.0, "e": 35.0}


def variants(damages: dict[tuple[str, ...], float]) -> tuple[list[tuple[str, ...]], list[Int8]]:
    """Tuning and layers in fp32 of every variant, and what was measured for it."""
    asked: list[Int8] = []

    def measured(options: Int8) -> Int8Damage:
        asked.append(options)
        return Int8Damage(damages[options.tuning, *options.keep_fp32], NOISE)

    found = int8_variants(measured)
    assert [variant.damage for variant in found] == sorted((w.damage for w in found), reverse=True)
    return [(variant.int8.tuning, *variant.int8.keep_fp32) for variant in found], asked


def test_where_int8_costs_little_nothing_else_is_measured() -> None:
    found, asked = variants({("bias",): ENOUGH})
    assert found == [("bias",)]
    assert len(asked) == 1


def test_equalising_takes_the_place_of_what_it_helps() -> None:
    assert variants({("bias",): 1.0, ("both",): 0.01})[0] == [("both",)]


def test_the_noisiest_stay_fp32_until_it_is_enough() -> None:
    damages = {("bias",): 1.0, ("both",): 0.9, ("bias", "d"): 0.5, ("bias", "d", "b"): 0.01}
    found, asked = variants(damages)
    assert found == [("bias",), ("bias", "d"), ("bias", "d", "b")]
    assert len(asked) == 4


def test_what_does_not_help_is_no_way() -> None:
    damages = {
        ("bias",): 1.0,
        ("both",): 0.6,
        ("both", "d"): 0.55,
        ("both", "d", "b"): 0.3,
        ("both", "d", "b", "a", "e"): 0.29,
    }
    assert variants(damages)[0] == [("both",), ("both", "d", "b")]


@pytest.mark.parametrize("count", [0, 1])
def test_a_network_of_one_layer_is_int8_or_not(count: int) -> None:
    noise = dict(list(NOISE.items())[:count])
    found = int8_variants(lambda options: Int8Damage(1.0, noise))
    assert len(found) == 1
