"""`python -m benchmarks.peer_scripts.to_torch_onnx NETWORK STATE_DICT OUT`: by torch.onnx."""

import sys

import torch

from benchmarks.shared.networks import NETWORKS, load

name, state_dict, out = sys.argv[1:]
example = torch.zeros(NETWORKS[name].input_shape)
torch.onnx.export(load(name, state_dict), (example,), out, dynamo=True, external_data=False)
