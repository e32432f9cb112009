"""One decoder and one policy for images, whether folders or lists name them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from csa_core.data.decode import check_images, evaluated, trained
from csa_core.data.sources import load_source
from csa_core.errors import UserError
from tests.csa_core.data.test_own_images import data_of_lists, fresh, write_lists
from tests.helpers.images import folder, folder_of_images

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (10, 10, 3), dtype=np.uint8)


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a part of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def deep_rgb() -> bytes:
    """A PNG of 16 bits a channel and three channels, which Pillow cannot write."""

    rows = b"".join(b"\0" + RNG.integers(0, 65536, 30, dtype=np.uint16).tobytes() for _ in range(10))
    header = struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write(kind: str, path: Path) -> np.ndarray | None:
    """Write an image of a kind; return what it must be read as, None where it must be refused."""
    image = Image.fromarray(COLOURS)
    alpha = RNG.integers(0, 256, (10, 10), dtype=np.uint8)
    over_white = (COLOURS * (alpha[..., None] / 255) + 255 - alpha[..., None]).round()
    if kind == "16 bits, grey":
        Image.fromarray(RNG.integers(0, 65536, (10, 10), dtype=np.uint16)).save(path)
        return None
    if kind == "16 bits, colours":
        path.write_bytes(deep_rgb())
        return None
    if kind.startswith("turned"):
        exif = Image.Exif()
        exif[0x0112] = int(kind[-1])
        # What EXIF calls the place of the first row and the first column, undone by hand.
        turns = {3: np.rot90(COLOURS, 2), 6: np.rot90(COLOURS, -1), 8: np.rot90(COLOURS), 5: COLOURS.transpose(1, 0, 2)}
        image.save(path, exif=exif)
        return turns[int(kind[-1])]
    if kind == "grey":
        image.convert("L").save(path)
        return np.asarray(image.convert("L"))[..., None].repeat(3, 2)
    if kind == "one bit":
        image.convert("1").save(path)
        return np.asarray(image.convert("1"))[..., None].repeat(3, 2) * np.uint8(255)
    if kind == "transparent":
        Image.fromarray(np.dstack([COLOURS, alpha])).save(path)
        return over_white
    if kind.startswith("packed"):
        bits = int(kind[-1])
        grey = RNG.integers(0, 2**bits, (10, 10), dtype=np.uint8)
        lines = np.unpackbits(grey[..., None], axis=2)[:, :, 8 - bits :].reshape(10, -1)
        rows = b"".join(b"\0" + np.packbits(line).tobytes() for line in lines)
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, bits, 0, 0, 0, 0))
        header += chunk(b"tRNS", struct.pack(">H", 2))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
        shown = grey * np.uint8(255 // (2**bits - 1))
        return np.where(grey == 2, np.uint8(255), shown)[..., None].repeat(3, 2)
    if kind == "palette with a transparent colour":
        indices = RNG.integers(0, 3, (10, 10), dtype=np.uint8)
        coloured = Image.frombytes("P", (10, 10), indices.tobytes())
        colours = np.array([[9, 8, 7], [200, 10, 30], [40, 50, 60]], dtype=np.uint8)
        coloured.putpalette(colours.tobytes())
        coloured.save(path, transparency=1)
        return np.where(indices[..., None] == 1, np.uint8(255), colours[indices])
    assert kind == "animation"
    image.save(path, save_all=True, append_images=[Image.new("RGB", (10, 10))], duration=100)
    return COLOURS


KINDS = ["16 bits, grey", "16 bits, colours", "turned 3", "turned 5", "turned 6", "turned 8", "grey", "one bit"]
KINDS += ["transparent", "palette with a transparent colour", "animation", "packed 2", "packed 4"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_read_an_image_reads_it_the_same(kind: str, tmp_path: Path) -> None:
    path = folder_of_images(tmp_path / "folder") / "train/ant/0.png"
    wanted = write(kind, path)
    lists = write_lists(tmp_path / "lists")
    (tmp_path / "lists/a/0.png").write_bytes(path.read_bytes())
    problems = list(check_images(data_of_lists(lists), 0))
    if wanted is None:
        with pytest.raises(UserError, match=r"ant/0.png: has 16 bits a channel; save it with 8$"):
            folder(tmp_path / "folder")
        with pytest.raises(UserError, match="has 16 bits a channel"):
            evaluated(lists / "a/0.png", 10)
        with pytest.raises(UserError, match="has 16 bits a channel"):
            trained(lists / "a/0.png", 10, np.full(29, 0.5, dtype=np.float32))
        assert len(problems) == 1 and "line 1: " in problems[0] and "has 16 bits a channel" in problems[0]
        return
    assert not problems
    in_folder = folder(tmp_path / "folder").train_images[0].astype(int)
    assert np.abs(in_folder - wanted).max() <= 1, "one level of rounding where it is blended"
    large = Image.fromarray(in_folder.astype(np.uint8))
    for read in (evaluated, lambda p, side: trained(p, side, np.full(29, 0.5, dtype=np.float32))):
        large.save(tmp_path / "same.png")
        assert np.array_equal(read(lists / "a/0.png", 10), read(tmp_path / "same.png", 10))


def test_a_turned_photo_is_cropped_as_it_is_seen(tmp_path: Path) -> None:
    """Not square, and large enough that the JPEG is decoded at a part of its size."""
    pixels = np.asarray(Image.fromarray(RNG.integers(0, 256, (30, 50, 3), dtype=np.uint8)).resize((1000, 600)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "upright.jpg", quality=95)
    drawn = RNG.random(29, dtype=np.float32)
    drawn[:10] = 0.9
    one, other = (trained(tmp_path / f"{name}.jpg", 32, drawn).astype(int) for name in ("turned", "upright"))
    assert np.abs(one - other).mean() < 3, "levels of 255: a JPEG turned is another JPEG"


def test_a_text_chunk_or_a_broken_orientation_changes_nothing(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 5000)
    exif = Image.Exif()
    exif[0x0112] = 77
    folder_of_images(tmp_path)
    Image.fromarray(COLOURS).save(tmp_path / "train/ant/0.png", pnginfo=info, exif=exif)
    assert np.array_equal(folder(tmp_path).train_images[0], COLOURS)


@pytest.mark.parametrize("source", ["folder", "image_list"])
def test_a_class_that_is_not_tested_is_said_and_not_refused(
    source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if source == "folder":
        folder_of_images(tmp_path)
        for path in (tmp_path / "train/ant", tmp_path / "train/bee", tmp_path / "test/bee"):
            fresh(path / "x.png")
        (tmp_path / "train/cat").mkdir()
        fresh(tmp_path / "train/cat/x.png")
        assert folder(tmp_path).class_names == ("ant", "bee", "cat")
    else:
        lists = write_lists(tmp_path)
        (lists / "test.txt").write_text("b/3.png 1\n")
        load_source(data_of_lists(lists))
    what = "1 of 3 classes have no test images ('cat')" if source == "folder" else "1 of 2 classes have no test images"
    assert f"note: {what}" in capfd.readouterr().err
