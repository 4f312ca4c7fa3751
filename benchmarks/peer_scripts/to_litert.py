"""`python -m benchmarks.peer_scripts.to_litert NETWORK STATE_DICT OUT`.

What litert-torch writes. Channels last at the input, so that it need not transpose: its fastest
form.
"""

import sys

import litert_torch
import torch

from benchmarks.shared.networks import NETWORKS, load

name, state_dict, out = sys.argv[1:]
model = litert_torch.to_channel_last_io(load(name, state_dict), args=[0])
batch, channels, height, width = NETWORKS[name].input_shape
converted = litert_torch.convert(model, (torch.zeros(batch, height, width, channels),))
converted.export(out)
