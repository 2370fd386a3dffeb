"""Finding and reading of images and videos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lad.media import Video, VideoWriter, find_inputs, read_image


@pytest.fixture
def folder(tmp_path):
    for name in ("photos/b.JPG", "photos/sub/a.png", "photos/.hidden.png", "photos/out/a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(path)
    (tmp_path / "photos/film.mp4").write_bytes(b"")
    (tmp_path / "photos/notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(inputs):
    return [str(x.name) for x in inputs]


def test_folders_are_searched_and_globs_matched(folder):
    photos = str(folder / "photos")
    found = find_inputs([photos], leave_out=folder / "photos/out")
    assert names(found) == ["b.JPG", "film.mp4", "sub/a.png"]
    assert [x.is_video for x in found] == [False, True, False]
    for all_of_it in (folder / "photos", folder):  # would leave out everything
        assert len(find_inputs([photos], leave_out=all_of_it)) == 4
    assert names(find_inputs([f"{photos}/*"])) == ["b.JPG", "film.mp4"]
    assert names(find_inputs([f"{photos}/*/*.png"])) == ["a.png", "a.png"]
    assert names(find_inputs([f"{folder}/**/*.JPG"])) == ["b.JPG"]
    assert names(find_inputs([f"{photos}/notes.txt", f"{photos}/b.JPG", photos])) == [
        *("notes.txt", "b.JPG", "film.mp4", "out/a.png", "sub/a.png")
    ]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("empty", "empty: there are no images or videos"),
        ("photos/*.webp", "webp: there are no images or videos"),
        ("photos/*.txt", "txt: there are no images or videos"),
        ("photo.jpg", "photo.jpg: there is no such file"),
    ],
)
def test_nothing_found(folder, pattern, message):
    with pytest.raises(FileNotFoundError, match=message):
        find_inputs([str(folder / pattern)])


def test_images_are_rgb_and_turned(tmp_path):
    image = Image.new("RGB", (30, 20), (200, 100, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("L").save(tmp_path / "gray.png")
    assert read_image(tmp_path / "turned.png").shape == (30, 20, 3)
    assert read_image(tmp_path / "turned.png")[0, 0].tolist() == [200, 100, 50]
    assert read_image(tmp_path / "alpha.png")[0, 0].tolist() == [200, 100, 50]
    assert read_image(tmp_path / "gray.png").shape == read_image(tmp_path / "palette.png").shape


def test_images_are_read_as_in_training(tmp_path):
    numbers = (np.arange(24 * 32, dtype=np.uint16) * 85).reshape(24, 32)
    Image.fromarray(numbers).save(tmp_path / "sixteen.png")
    assert np.array_equal(read_image(tmp_path / "sixteen.png")[..., 2], numbers // 256)
    Image.fromarray(numbers.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="float.tif: it holds 32-bit floating-point"):
        read_image(tmp_path / "float.tif")


def test_unreadable_images_are_one_line(folder):
    whole = folder / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (folder / "half.png").write_bytes(whole.read_bytes()[:3000])
    for name in ("half.png", "photos/notes.txt"):
        with pytest.raises(ValueError, match=f"{name}: it is no image, or is damaged"):
            read_image(folder / name)
    with pytest.raises(ValueError, match="photos: Is a directory"):
        read_image(folder / "photos")
    with pytest.raises(FileNotFoundError, match="nowhere.png: there is no such file"):
        read_image(folder / "nowhere.png")


def write_video(path: Path, frames) -> None:
    writer = VideoWriter(path, 12.5)
    try:
        for frame in frames:
            writer.write(frame)
    except OSError as error:
        pytest.skip(f"OpenCV without the codec: {error}")
    writer.close()


def test_videos_come_back(tmp_path):
    colors = [(200, 40, 10), (10, 200, 40), (40, 10, 200)]
    frames = [np.full((48, 64, 3), color, np.uint8) for color in colors]
    write_video(tmp_path / "film.mp4", frames)
    video = Video(tmp_path / "film.mp4")
    assert (video.rate, video.num_frames) == (12.5, 3)
    found = list(video)
    assert [x.shape for x in found] == [(48, 64, 3)] * 3
    # Compression changes colors a little.
    middle = np.array([frame[24, 32] for frame in found]).astype(int)
    assert np.abs(middle - colors).max() < 12


def test_unreadable_videos_are_one_line(folder, capfd):
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    for name in ("photos/film.mp4", "noise.mp4", "nowhere.mp4"):
        with pytest.raises(ValueError, match=f"{name}: it is no video that OpenCV reads"):
            Video(folder / name)
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError, match="film.mp4: OpenCV cannot write it"):
        VideoWriter(folder / "no/film.mp4", 25).write(np.zeros((48, 64, 3), np.uint8))
