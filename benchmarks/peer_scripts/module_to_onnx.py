"""`python -m benchmarks.peer_scripts.module_to_onnx MODULE OUT`: a pickle by torch.onnx."""

import sys

import torch

from benchmarks.shared.networks import NETWORKS

module, out = sys.argv[1:]
model = torch.load(module, weights_only=False).eval()  # the benchmark has just written it
example = torch.zeros(NETWORKS["mobilenet_v2"].input_shape)
torch.onnx.export(model, (example,), out, dynamo=True, external_data=False)
