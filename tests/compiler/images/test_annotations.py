"""Labels beside images: their files, where they come to lie, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from noise_images import noise_images
from PIL import Image
from torch import Tensor, nn

from shrinkc.compiler.api.steps.network import subject_of
from shrinkc.compiler.images.annotations import find_annotations
from shrinkc.compiler.images.preprocessing import Preprocessing, preprocessing_for
from shrinkc.compiler.images.source import ImageFolder, ImageSource, image_source
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.tasks.asked import asked_task
from shrinkc.compiler.tasks.dense import Dense
from shrinkc.compiler.tasks.detection.detection import Detection
from shrinkc.errors import ImageError, InputError

SHAPES = ((1, 3, 32, 48),)  # height 32, width 48
WIDE = (96, 32)  # width, height of an image


def image_file(path: Path) -> None:
    """White in columns 12 to 36 of rows 8 to 24, black elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((WIDE[1], WIDE[0], 3), np.uint8)
    pixels[8:24, 12:36] = 255
    Image.fromarray(pixels).save(path)


def yolo(root: Path, lines: str = "1 0.25 0.5 0.25 0.5\n") -> Path:
    """One image with the box of `picture`, one without any."""
    for name, text in (("a", lines), ("b", None)):
        image_file(root / "images" / f"{name}.png")
        (root / "labels").mkdir(exist_ok=True)
        if text is not None:
            (root / "labels" / f"{name}.txt").write_text(text)
    return root / "images"


def coco(path: Path, **changed: Any) -> Path:
    found: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "val/a.png", "width": 96, "height": 32},
            {"id": 9, "file_name": "val/b.png", "width": 96, "height": 32},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 8, "bbox": [12, 8, 24, 16], "iscrowd": 1}],
    }
    path.write_text(json.dumps(found | changed))
    return path


def read(source: ImageSource) -> tuple[Tensor, Tensor]:
    batches = list(source.images.batches(source.preprocessing, 2))  # pyright: ignore
    assert batches[0][1] is not None
    return batches[0][0][0], batches[0][1]


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch", 40])
def test_boxes_lie_where_the_pixels_are(tmp_path: Path, resize: Any) -> None:
    source = image_source(
        ImageFolder(yolo(tmp_path), resize=resize, mean=(0,), std=(1,)), SHAPES, "images"
    )
    assert source.kind == "boxes"
    x, labels = read(source)
    white = x[0].amin(0) > 0.6
    rows, columns = white.nonzero(as_tuple=True)
    kind, left, top, right, bottom, crowd = labels[0, 0].tolist()
    assert (kind, crowd) == (1, 0)
    assert left == pytest.approx(float(columns.min()), abs=1)
    assert right == pytest.approx(float(columns.max()) + 1, abs=1)
    assert top == pytest.approx(float(rows.min()), abs=1)
    assert bottom == pytest.approx(float(rows.max()) + 1, abs=1)
    assert labels[1, :, 0].tolist() == [-1]  # nothing is in the other one


def test_boxes_are_letterboxed_unless_said_otherwise(tmp_path: Path) -> None:
    source = image_source(yolo(tmp_path), SHAPES, "images")
    assert source.preprocessing is not None
    assert source.preprocessing.fit == "letterbox"
    _, labels = read(source)
    assert labels[0, 0].tolist() == [1, 6, 12, 18, 20, 0]  # halved, 8 rows of grey above
    x, _ = read(image_source(ImageFolder(yolo(tmp_path), mean=(0,), std=(1,)), SHAPES, "images"))
    assert float(x[0, :, :8].min()) == float(x[0, :, 24:].max()) == pytest.approx(114 / 255)


def test_the_folder_of_a_data_set_has_images_and_labels(tmp_path: Path) -> None:
    yolo(tmp_path)
    source = image_source(tmp_path, SHAPES, "images")
    assert source.kind == "boxes"
    assert read(source)[1][0, 0, 0] == 1


def test_what_a_crop_leaves_nothing_of_is_no_object(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "0 0.05 0.5 0.05 0.5\n1 0.25 0.5 0.25 0.5\n")
    _, labels = read(image_source(ImageFolder(folder, resize=32), SHAPES, "images"))
    assert labels[0].tolist() == [[1, 0, 8, 12, 24, 0]]  # 24 columns are cut off at the left


@pytest.mark.parametrize("classes", [2, 9])
def test_coco_is_numbered_by_order_or_by_ids(tmp_path: Path, classes: int) -> None:
    yolo(tmp_path)
    labels = coco(tmp_path / "boxes.json")
    given = ImageFolder(tmp_path / "images", annotations=labels)
    _, found = read(image_source(given, SHAPES, "images").numbering(classes, "images"))
    assert found[0, 0].tolist() == [{2: 1, 9: 8}[classes], 6, 12, 18, 20, 1]
    named = image_source(given, SHAPES, "images").numbering(classes, "images").images
    assert named.names == {2: ("cat", "dog"), 9: ()}[classes]  # pyright: ignore


def test_masks_follow_their_images(tmp_path: Path) -> None:
    image_file(tmp_path / "images" / "a.jpg")
    mask = np.full((32, 96), 4, np.uint8)
    mask[8:24, 12:36] = 2
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    given = ImageFolder(
        tmp_path / "images", "letterbox", (0,), (1,), annotations=tmp_path / "masks"
    )
    source = image_source(given, SHAPES, "images")
    assert source.kind == "masks"
    x, labels = read(source)
    assert labels.dtype == torch.int64
    assert sorted(labels.unique().tolist()) == [2, 4, 255]
    assert (labels == 255).sum() == 16 * 48  # above and below
    white = (x[0].amin(0) > 0.8) & (labels[0] != 255)
    assert float(((labels[0] == 2) == white).float().mean()) > 0.97
    stored = source.decoded(Silent())
    assert stored.labels is not None
    assert torch.equal(stored.labels, labels)


def test_palettes_hold_indices_not_colours(tmp_path: Path) -> None:
    image_file(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    mask = Image.fromarray(np.full((32, 96), 3, np.uint8), "P")
    mask.putpalette([x for i in range(256) for x in (i, 255 - i, 7)])
    mask.save(tmp_path / "masks" / "a.png")
    given = ImageFolder(tmp_path / "images", "stretch", annotations=tmp_path / "masks")
    assert read(image_source(given, SHAPES, "images"))[1].unique().tolist() == [3]


def test_arrays_are_labels_as_they_are(tmp_path: Path) -> None:
    for index in range(3):
        image_file(tmp_path / "images" / f"{index}.png")
        (tmp_path / "numbers").mkdir(exist_ok=True)
        np.save(tmp_path / "numbers" / f"{index}.npy", np.array([index, 1.5]))
    given = ImageFolder(tmp_path / "images", annotations=tmp_path / "numbers", limit=2)
    source = image_source(given, SHAPES, "images")
    assert source.kind == "numbers"
    assert read(source)[1].tolist() == [[0, 1.5], [1, 1.5]]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("resize", [32, "letterbox", "stretch"])
def test_images_to_be_returned_follow_their_images(tmp_path: Path, times: int, resize: Any) -> None:
    image_file(tmp_path / "images" / "a.png")
    (tmp_path / "maps").mkdir()
    with Image.open(tmp_path / "images" / "a.png") as image:
        larger = image.resize((WIDE[0] * times, WIDE[1] * times), Image.Resampling.NEAREST)
    larger.save(tmp_path / "maps" / "a.png")
    annotations = tmp_path / "maps"
    given = ImageFolder(tmp_path / "images", resize, scale=255, annotations=annotations)
    network = subject_of(nn.Upsample(scale_factor=times), (1, 3, 32, 48))
    task, found = network.images({"images": (given, "read")}, asked_task(Dense()))
    x, labels = read(found["images"])  # pyright: ignore
    assert labels.shape == (1, 3, 32 * times, 48 * times)
    assert float(labels.max()) == 255
    known = torch.nn.functional.interpolate(x, scale_factor=times)
    assert float(task.correct((known,), labels)) > 0.97
    larger.resize((100, 32)).save(tmp_path / "maps" / "a.png")
    with pytest.raises(ImageError, match=r"a.png: a map of 100×32 for an image of 96×32; it must"):
        network.images({"images": (given, "read")}, asked_task(Dense()))


def test_maps_of_one_channel_and_16_bits(tmp_path: Path) -> None:
    image_file(tmp_path / "images" / "a.png")
    (tmp_path / "maps").mkdir()
    depth = np.arange(96 * 32, dtype=np.uint16).reshape(32, 96) * 16
    Image.fromarray(depth).save(tmp_path / "maps" / "a.png")
    given = ImageFolder(tmp_path / "images", "stretch", annotations=tmp_path / "maps")
    source = image_source(given, ((1, 3, 32, 96),), "images").as_numbers()
    labels = read(source)[1]
    np.testing.assert_allclose(labels[0, 0].numpy(), depth / 65535, atol=1e-6)


LINES = {
    "1 0.5 0.5 0.2\n": r"a.txt, line 1: 4 numbers; a line is class, centre x, centre y, width",
    "0 0.5 0.5 0.2 0.2\ncat 0.5 0.5 0.2 0.2\n": r"a.txt, line 2: 'cat 0.5 0.5 0.2 0.2' is none;",
    "-1 0.5 0.5 0.2 0.2\n": r"a.txt, line 1: class -1; .* classes counted from 0",
    "0.5 0.5 0.5 0.2 0.2\n": r"a.txt, line 1: class 0.5;",
    "0 0.9 0.5 0.4 0.2\n": r"a.txt, line 1: the box lies outside the image; .* in shares",
    "0 48 16 24 16\n": r"a.txt, line 1: the box lies outside the image",
    "0 0.5 0.5 0 0.2\n": r"a.txt, line 1: a box of 0×0.2 has no area",
    "0 nan 0.5 0.2 0.2\n": r"a.txt, line 1: class 0",
}


@pytest.mark.parametrize("lines", LINES)
def test_a_wrong_line_is_named(tmp_path: Path, lines: str) -> None:
    with pytest.raises(ImageError, match=LINES[lines]):
        image_source(yolo(tmp_path, lines), SHAPES, "images")


OF_COCO: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"images": 3}, r"no list 'images'; COCO's form of boxes is needed"),
    "no image": (
        {"annotations": [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}]},
        r"annotation 1: there is no image 1",
    ),
    "no category": (
        {"annotations": [{"image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1]}]},
        r"annotation 1: there is no category 4",
    ),
    "no box": (
        {"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1]}]},
        r"annotation 1: it needs image_id, category_id, and bbox",
    ),
    "no name": ({"images": [{"id": 7}]}, r"images need 'id' and 'file_name'"),
}


@pytest.mark.parametrize("name", OF_COCO)
def test_wrong_json_is_told(tmp_path: Path, name: str) -> None:
    changed, message = OF_COCO[name]
    with pytest.raises(ImageError, match=message):
        find_annotations(coco(tmp_path / "x.json", **changed), "annotations")


def test_boxes_beyond_their_image_are_told(tmp_path: Path) -> None:
    yolo(tmp_path)
    beyond = [{"image_id": 7, "category_id": 3, "bbox": [60, 0, 60, 16]}]
    given = ImageFolder(
        tmp_path / "images", annotations=coco(tmp_path / "x.json", annotations=beyond)
    )
    with pytest.raises(ImageError, match=r"the box 60, 0, 120, 16 of 'a.png' lies outside"):
        read(image_source(given, SHAPES, "images").numbering(2, "images"))


def folders(root: Path) -> Path:
    for name in ("a", "b", "c"):
        image_file(root / "images" / f"{name}.png")
    (root / "masks").mkdir()
    return root / "masks"


def test_masks_that_do_not_fit_are_told(tmp_path: Path) -> None:
    masks = folders(tmp_path)
    given = ImageFolder(tmp_path / "images", annotations=masks)
    with pytest.raises(ImageError, match=r"masks: no labels in it, neither .txt, .png"):
        image_source(given, SHAPES, "images")
    Image.new("L", WIDE).save(masks / "a.png")
    with pytest.raises(
        ImageError, match=r"without a label in `annotations`: 2 of 3 images, first 'b"
    ):
        image_source(given, SHAPES, "images")
    Image.new("L", (96, 31)).save(masks / "b.png")
    Image.new("RGB", WIDE).save(masks / "c.png")
    source = image_source(given, SHAPES, "images")
    with pytest.raises(ImageError, match=r"b.png: a mask of 96×31 for an image of 96×32"):
        read(source)
    with pytest.raises(ImageError, match=r"c.png: a mask of RGB; one channel of class indices"):
        list(source.images.part(slice(2, 3)).batches(source.preprocessing))  # pyright: ignore
    (masks / "c.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"c.png: not a readable JPEG, PNG, WEBP, BMP or TIFF"):
        list(source.images.part(slice(2, 3)).batches(source.preprocessing))  # pyright: ignore


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    folders(tmp_path)
    for name, message in (
        ("none", "no such file or folder of labels"),
        ("x.xml", "labels are COCO"),
    ):
        if "." in name:
            (tmp_path / name).write_text("<xml>")
        with pytest.raises(ImageError, match=message):
            image_source(
                ImageFolder(tmp_path / "images", annotations=tmp_path / name), SHAPES, "images"
            )
    masks = tmp_path / "masks"
    for name in ("a", "b", "c"):
        Image.new("L", WIDE).save(masks / f"{name}.png")
    named = ImageFolder(tmp_path / "images", annotations=masks, classes={"sky": 0, "sea": 1})
    assert image_source(named, SHAPES, "images").images.names == ("sky", "sea")  # pyright: ignore
    given = ImageFolder(tmp_path / "images", annotations=masks, classes={"a": 3})
    with pytest.raises(InputError, match="`classes` numbers class folders, and `annotations`"):
        image_source(given, SHAPES, "images")


def test_labels_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    masks = folders(tmp_path)
    Image.new("L", WIDE).save(masks / "a.png")
    given = ImageFolder(tmp_path / "images", annotations=masks)
    assert not image_source(given, SHAPES, "images", optional=True).labelled


def matching(root: Path, images: list[str], labels: list[str], limit: int | None = None) -> Any:
    """The mask's class of every image by its path; masks hold their places in `labels`."""
    for name in images:
        image_file(root / "images" / name)
    for place, name in enumerate(labels):
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", WIDE, place).save(root / "masks" / name)
    given = ImageFolder(root / "images", "stretch", annotations=root / "masks", limit=limit)
    source = image_source(given, SHAPES, "images")
    found = source.images.all_labels(source.preprocessing)  # pyright: ignore
    assert found is not None
    return found.flatten(1).amax(1).tolist()


MATCHED: dict[str, tuple[list[str], list[str], list[int]]] = {
    "by the whole path": (["x/1.jpg", "y/1.jpg"], ["y/1.png", "x/1.png"], [1, 0]),
    "images further down": (["s/x/1.jpg", "s/y/1.jpg"], ["y/1.png", "x/1.png"], [1, 0]),
    "labels further down": (["1.jpg", "2.jpg"], ["val/2.png", "val/1.png"], [1, 0]),
    "by the images' own folder": (["1.jpg"], ["other/1.png", "images/1.png"], [1]),
    "by the name alone": (["x/1.jpg", "y/2.jpg"], ["2.png", "1.png"], [1, 0]),
}
LACKS = "without a label in `annotations`"
UNMATCHED: dict[str, tuple[list[str], list[str], str]] = {
    "one label of two": (["x/1.jpg", "y/1.jpg"], ["1.png"], "'x/1.jpg' and 'y/1.jpg' both fit '1'"),
    "two labels of one": (["1.jpg"], ["x/1.png", "y/1.png"], "'x/1' and 'y/1' both fit '1.jpg'"),
    "another's path": (["x/1.jpg", "y/1.jpg"], ["x/1.png"], f"{LACKS}: 1 of 2 images, first 'y/1"),
    "another folder": (["x/1.jpg"], ["y/1.png"], f"{LACKS}: 1 of 1 image, first 'x/1"),
    "one name of two": (["1.jpg", "1.png"], ["1.png"], "'1.jpg' and '1.png' both fit '1'"),
    "one image of two": (["1.jpg"], ["1.png", "1.bmp"], "two labels for '1'; leave one of them"),
}


@pytest.mark.parametrize("case", MATCHED)
def test_labels_are_of_images_by_their_paths(tmp_path: Path, case: str) -> None:
    images, labels, wanted = MATCHED[case]
    assert matching(tmp_path, images, labels) == wanted


@pytest.mark.parametrize("case", UNMATCHED)
def test_labels_of_equal_names_are_never_guessed(tmp_path: Path, case: str) -> None:
    images, labels, message = UNMATCHED[case]
    with pytest.raises(ImageError, match=message):
        matching(tmp_path, images, labels)
    if "both fit" in message:  # whichever images are looked at
        with pytest.raises(ImageError, match=message):
            matching(tmp_path, images, labels, limit=1)


def test_two_folders_do_not_share_labels(tmp_path: Path) -> None:
    network = subject_of(
        nn.Sequential(nn.Conv2d(3, 14, 8, 8), nn.Sigmoid(), nn.Flatten(2)), (1, 3, 32, 48)
    )

    def labels(annotations: str | None) -> list[Any]:
        read = {
            name: (ImageFolder(yolo(tmp_path / name), annotations=annotations), "read")
            for name in ("images", "calibration")
        }
        _, found = network.images(cast(Any, read), asked_task(Detection(layout="yolov8")))
        return [found[name].images.annotations.path.parent.name for name in read]  # pyright: ignore

    assert labels(None) == ["images", "calibration"]
    with pytest.raises(ImageError, match=r"labels: '.*/images/a.png' and '.*/images/a.png' both"):
        labels(str(tmp_path / "images/labels"))


def test_two_entries_of_one_name_are_told(tmp_path: Path) -> None:
    twice = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "a.png"}]
    with pytest.raises(ImageError, match=r"x.json: two labels for 'a'; leave one of them"):
        find_annotations(coco(tmp_path / "x.json", images=twice), "annotations")


def test_categories_that_cannot_number_classes(tmp_path: Path) -> None:
    found = find_annotations(coco(tmp_path / "x.json"), "annotations")
    with pytest.raises(ImageError, match="2 categories with ids up to 8 cannot number the 5"):
        found.numbered(5)


# --- images themselves ---


def placed(resize: Any = None, **given: Any) -> Preprocessing:
    return preprocessing_for(SHAPES[0], resize=resize, **given)


def test_letterbox_and_stretch_by_hand() -> None:
    wide, tall = placed("letterbox").placed(96, 32), placed("letterbox").placed(32, 64)
    assert (wide.target, wide.left, wide.top) == ((48, 16), 0, 8)
    assert (tall.target, tall.left, tall.top) == ((16, 32), 16, 0)
    assert placed("stretch").placed(7, 1000).target == (48, 32)


def test_raw_pixels_and_bgr(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :] = (10, 20, 200)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    given = ImageFolder(tmp_path / "images", resize="stretch", scale=255, bgr=True)
    source = image_source(given, SHAPES, "images")
    x = next(iter(source.images.batches(source.preprocessing)))[0][0]  # pyright: ignore
    assert x[0, :, 0, 0].tolist() == pytest.approx([200, 20, 10], rel=1e-6)
    stored = source.decoded(Silent())
    assert torch.equal(stored.inputs(stored.pixels), x)
    caffe = placed("stretch", scale=255, mean=(104, 117, 123), std=(1,))
    assert caffe.normalisation[0] == pytest.approx([104 / 255, 117 / 255, 123 / 255])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_formats_and_turned_images(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.zeros((48, 32, 3), np.uint8)
    pixels[:, :10] = 255  # the left, which is at the top once turned
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = suffix in (".png", ".jpg", ".webp", ".tiff")
    options: dict[str, Any] = {"exif": exif} if turned else {}
    Image.fromarray(pixels).save(tmp_path / "images" / f"a{suffix}", **options)
    given = ImageFolder(tmp_path / "images", resize="stretch", mean=(0,), std=(1,))
    source = image_source(given, SHAPES, "images")
    x = next(iter(source.images.batches(source.preprocessing)))[0][0][0]  # pyright: ignore
    if turned:
        assert float(x[:, :8].min()) > 0.8
        assert float(x[:, 14:].max()) < 0.2
    else:
        assert float(x[:, :, :12].min()) > 0.8


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(tmp_path: Path, mode: str, channels: int) -> None:
    (tmp_path / "images").mkdir()
    grey = np.full((16, 16), 255 if mode == "1" else 200, np.uint8)
    image = Image.fromarray(grey).convert("RGB" if mode == "CMYK" else "L")
    if mode == "I;16":
        image = Image.fromarray(np.full((16, 16), 200 * 257, np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.full((16, 16), 200 / 255, np.float32))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "images" / "a.tif")
    shapes = ((1, channels, 16, 16),)
    given = ImageFolder(tmp_path / "images", mean=(0,), std=(1,))
    source = image_source(given, shapes, "images")
    x = next(iter(source.images.batches(source.preprocessing)))[0][0]  # pyright: ignore
    wanted = 1.0 if mode == "1" else 200 / 255
    assert x.shape == (1, channels, 16, 16)
    assert float((x - wanted).abs().max()) < 0.02


def test_other_kinds_are_left_out_and_named(tmp_path: Path) -> None:
    image_file(tmp_path / "images" / "a.png")
    for name in ("b.gif", "c.heic"):
        (tmp_path / "images" / name).write_bytes(b"x")
    source = image_source(tmp_path / "images", SHAPES, "images")
    assert source.images.others == ("b.gif", "c.heic")  # pyright: ignore
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(ImageError, match=r"'b.gif' and no .jpg, .*convert the images"):
        image_source(tmp_path / "images", SHAPES, "images")


# --- classes ---


def wnids(root: Path, count: int = 3) -> Path:
    for index in range(count):
        image_file(root / "images" / f"n{1440764 + index:08d}" / "a.png")
    return root / "images"


def test_folders_of_imagenet_need_their_order(tmp_path: Path) -> None:
    source = image_source(wnids(tmp_path), SHAPES, "images")
    with pytest.raises(InputError, match="3 class folders of ImageNet do not say which of the "):
        source.numbering(1000, "images")
    assert source.numbering(3, "images") is not None  # a folder for every class: in sorted order


def test_classes_from_a_text(tmp_path: Path) -> None:
    folder, listed = wnids(tmp_path), tmp_path / "classes.txt"
    listed.write_text("n00000001\nn01440766\nn01440764\nn01440765\n")
    source = image_source(ImageFolder(folder, classes=listed), SHAPES, "images")
    assert [one.label for one in source.images.entries] == [2, 3, 1]  # pyright: ignore
    for text, message in (
        ("a\n\nb", "line 2: it is empty"),
        ("a\na\n", "line 2: it names 'a' again"),
        ("", "`classes` is empty"),
    ):
        listed.write_text(text)
        with pytest.raises(ImageError, match=message):
            image_source(ImageFolder(folder, classes=listed), SHAPES, "images")


# --- arrays in one file ---


def test_stacked_arrays_and_their_targets(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 2, 50)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "xy.npz", audio=x, target=np.arange(6))
    shapes = ((1, 2, 50),)
    alone = image_source(tmp_path / "x.npy", shapes, "images")
    assert torch.equal(alone.examples(6)[0][0], torch.tensor(x))  # pyright: ignore
    both = image_source(tmp_path / "xy.npz", shapes, "images")
    assert both.labels is not None
    assert both.labels.tolist() == list(range(6))
    assert len(image_source(ImageFolder(tmp_path / "xy.npz", limit=2), shapes, "images")) == 2
    for name, arrays, message in (
        ("two", {"a": x, "b": x}, r"2 arrays \(a, b\) beside 'target'; give one"),
        ("other", {"a": x[:, :1]}, r"other.npz, a: 6×1×50 of float32; the network reads n×2×50"),
        ("short", {"a": x, "target": np.arange(5)}, "short.npz, target: 5 labels for 6 inputs"),
        ("objects", {"a": np.array([{}])}, "an array of object; numbers are needed"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises((ImageError, InputError), match=message):
            image_source(tmp_path / f"{name}.npz", shapes, "images")
    np.savez_compressed(tmp_path / "large.npz", a=np.zeros((1 << 21, 8), np.float32))
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"large.npz, a: 2097152×8 of float32; the network reads"):
        image_source(tmp_path / "large.npz", shapes, "images")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20  # of 64 MiB nothing was unpacked
    tracemalloc.stop()
    (tmp_path / "bad.npz").write_bytes(b"PK no zip")
    with pytest.raises(ImageError, match=r"bad.npz: not a readable .npz"):
        image_source(tmp_path / "bad.npz", shapes, "images")
    with pytest.raises(InputError, match="`images` holds arrays, which are read as they are"):
        image_source(ImageFolder(tmp_path / "x.npy", mean=(0.5,)), shapes, "images")


@pytest.mark.parametrize("kind", ["flat", "other folders"])
def test_images_that_need_no_labels_have_none_where_others_are_judged(
    kind: str, tmp_path: Path
) -> None:
    """`classes` numbers the folders of `evaluation`; those of `images` may be others, or none."""
    noise_images(tmp_path / "judged")
    if kind == "flat":
        (tmp_path / "seen").mkdir()
        for file in sorted((tmp_path / "judged").glob("*/*.png"))[:6]:
            shutil.copy(file, tmp_path / "seen")
    else:
        noise_images(tmp_path / "seen")
        for folder in list((tmp_path / "seen").iterdir()):
            folder.rename(folder.with_name(f"n{folder.name}"))
    classes = {str(i): i + 1 for i in range(4)}  # of five
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = subject_of(model, (1, 3, 16, 16))
    given: Any = {"images": (ImageFolder(tmp_path / "seen", classes=classes), "if they fit")}
    judged = ImageFolder(tmp_path / "judged", classes=classes)
    _, found = network.images(given | {"evaluation": (judged, "read")}, asked_task(None))
    images, evaluation = found["images"], found["evaluation"]
    assert images is not None
    assert evaluation is not None
    assert (images.labelled, evaluation.labelled) == (False, True)
    with pytest.raises(ImageError, match="`classes`"):  # nothing else is judged
        network.images(given | {"evaluation": (None, "read")}, asked_task(None))
