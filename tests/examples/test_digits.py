"""The committed example is what examples/README.md says."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from examples.digits_data import split, to_tensor, write_folders
from examples.digits_net import digits_net

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_committed_weights_read_the_test_digits():
    model = digits_net()
    model.load_state_dict(torch.load(EXAMPLES / "digits.pt", weights_only=True))
    train, _, images, labels = split()
    assert (len(train), len(images)) == (1347, 450)
    with torch.no_grad():
        predicted = model.eval()(to_tensor(images)).argmax(1)
    assert (predicted == torch.tensor(labels)).sum() == 450  # examples/README.md


def test_the_example_is_small():
    assert (EXAMPLES / "digits.pt").stat().st_size < 1_000_000


def test_class_folders_hold_the_same_images(tmp_path: Path):
    _, _, images, labels = split()
    write_folders(images[:20], labels[:20], tmp_path)
    files = sorted(tmp_path.glob("*/*.png"), key=lambda path: path.name)
    assert [int(path.parent.name) for path in files] == labels[:20]
    with Image.open(files[3]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(images[3]))
