"""Channel groups in `shrinkc inspect`."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from channel_networks import graph_of
from rich.console import Console

from shrinkc.compiler.cli.show.channels import describe_channels, print_channels
from shrinkc.passes.analysis.channels.channel_groups import channel_groups


def printed(description: dict[str, Any]) -> str:
    stream = StringIO()
    print_channels(description, Console(width=120, file=stream, highlight=False))
    return stream.getvalue()


def test_json() -> None:
    found = json.loads(json.dumps(describe_channels(channel_groups(graph_of("grouped")))))
    assert found["channel_groups"][1] == {
        "name": "b.0",
        "channels": 16,
        "cells": 4,
        "made_by": ["b_0"],
        "read_by": ["c_0"],
    }
    assert found["protected_channels"] == [
        {"layer": "head.2", "channels": 5, "node": "head_2", "reason": "an output of the network"}
    ]


def test_for_people() -> None:
    text = printed(describe_channels(channel_groups(graph_of("grouped"))))
    assert "channel groups: 3" in text
    assert "16 in 4 cells" in text
    assert "5 channels of head.2 stay: an output of the network (head_2)" in text


def test_long_lists_are_counted() -> None:
    group = {"name": "[g]", "channels": 3, "cells": 1, "made_by": list("abcde"), "read_by": []}
    text = printed({"channel_groups": [group] * 43, "protected_channels": []})
    assert text.count("[g]") == 40
    assert "a, b, c and 2 more" in text
    assert "… and 3 more; --json lists all" in text
