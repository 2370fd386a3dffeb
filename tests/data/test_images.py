"""Image files of any kind: the right 8-bit pixels, or one line."""

import warnings
from pathlib import Path

import numpy as np
import PIL
import pytest
from detectron2.data import detection_utils
from PIL import Image

from faults.data import break_image
from lad.data.images import ImageMapper, UnreadableImage, check_header, read_image
from lad.data.layouts import open_photo

COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SIXTEEN = (np.arange(24 * 32, dtype=np.uint16) * 85).reshape(24, 32)
EXIF_ORIENTATION = 0x0112


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_8_bit_images_are_read_as_detectron2_reads_them(tmp_path, mode, suffix, format):
    path = str(tmp_path / f"a.{suffix}")
    try:
        Image.fromarray(COLORS).convert(mode).save(path)
    except OSError:
        pytest.skip("this format has no such mode")
    if (mode, suffix) == ("YCbCr", "tif") and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 cannot read the YCbCr TIFF that it writes")
    expected = detection_utils.read_image(path, format)
    assert np.array_equal(read_image(path, format), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    Image.fromarray(SIXTEEN).save(path)
    expected = np.repeat((SIXTEEN // 256).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(read_image(path, "RGB"), expected)
    assert read_image(path, "L").shape == (24, 32, 1)


def test_a_palette_with_transparency_gives_its_colors(tmp_path):
    path = str(tmp_path / "a.png")
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path, "RGB").tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    image = Image.new("L", (32, 24), 0)
    image.paste(255, (0, 0, 8, 8))  # a corner
    image.convert("RGB").save(tmp_path / f"a.{suffix}", exif=exif)
    found = read_image(str(tmp_path / f"a.{suffix}"), "RGB")
    rows, columns = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0)}.get(orientation) or {
        5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)
    }[orientation]  # fmt: skip
    assert found.shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))
    assert found[-rows, -columns].min() > 200 and found[rows - 1, columns - 1].max() < 50
    photo = open_photo(tmp_path / f"a.{suffix}", [], pytest.fail)
    assert (photo.height, photo.width) == found.shape[:2]


BROKEN = {
    "a folder": "Is a directory",
    "a broken link": "No such file",
    "an empty file": "cannot identify image file",
    "HTML": "cannot identify image file",
    "truncated": "truncated",
    "of floats": "it holds 32-bit floating-point numbers; save it with 8 bits per channel",
    "of another size": "it is 48x48 .*, but the annotations say 32x24",
    "of 196 megapixels": (
        "it has 14000x14000 pixels, more than 100000000 .in training: dataloader.train.mapper"
    ),
}


@pytest.mark.parametrize(("kind", "message"), BROKEN.items())
def test_what_cannot_be_used_is_named_in_one_line(tmp_path, kind, message):
    path = str(tmp_path / "a.png")
    Image.fromarray(COLORS).save(path)
    break_image(Path(path), kind)
    size = (32, 24) if kind == "of another size" else None
    with pytest.raises(UnreadableImage, match=f"a.png: .*{message}.*: replace or rem") as error:
        read_image(path, "RGB", size=size)
    assert "\n" not in str(error.value) and error.value.line == str(error.value)
    if kind not in ("truncated", "of floats"):
        with pytest.raises(UnreadableImage, match=message):
            check_header(path, size, 100_000_000)


def test_the_limit_of_pixels_is_an_option(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    options = {"augmentations": [], "image_format": "RGB"}
    record = {"file_name": str(tmp_path / "a.png"), "height": 24, "width": 32}
    mapped = ImageMapper(False, **options)(record)
    assert np.array_equal(mapped["image"].permute(1, 2, 0), COLORS)
    small = ImageMapper(False, max_pixels=700, **options)
    for use in (small, small.check):
        with pytest.raises(UnreadableImage, match=r"32x24 pixels, more than 700 "):
            use(record)
    assert detection_utils.read_image.__module__ == "detectron2.data.detection_utils"


def test_the_line_of_an_error_of_a_loading_process():
    text = (
        "Caught UnreadableImage in worker.\n  File x\nlad.data.images.UnreadableImage: a.png: bad"
    )
    assert UnreadableImage(text).line == "a.png: bad"
