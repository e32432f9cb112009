"""Folders and lists as people bring them: what is read, what is said, and what is refused, and in which words."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csa_core.config import DataConfig
from csa_core.data.decode import check_images
from csa_core.data.listed import ImageList
from csa_core.data.sources import load_source
from csa_core.errors import UserError
from tests.helpers.images import folder, folder_of_images

RNG = np.random.default_rng(11)


def fresh(path: Path) -> Path:
    """Write an image that nothing else is."""
    Image.fromarray(RNG.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(path)
    return path


def write_lists(root: Path) -> Path:
    """Write two classes of four images, the last of each for the test, and their lists."""
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(4):
            fresh(root / name / f"{i}.png")
    (root / "train.txt").write_text("".join(f"{n}/{i}.png {k}\n" for k, n in enumerate("ab") for i in range(3)))
    (root / "test.txt").write_text("a/3.png 0\nb/3.png 1\n")
    return root


def data_of_lists(root: Path) -> DataConfig:
    lists = {f"{part}_list": str(root / f"{part}.txt") for part in ("train", "test")}
    return DataConfig(source="image_list", root=str(root), profile="as_is", image_size=32, **lists)  # type: ignore[arg-type]


def load_lists(root: Path) -> ImageList:
    dataset = load_source(data_of_lists(root))
    assert isinstance(dataset, ImageList)
    return dataset


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# The same image.


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


def symlink(root: Path) -> None:
    (root / "b/link.png").symlink_to(root / "a/0.png")
    append(root / "test.txt", "b/link.png 1")


def hard_link(root: Path) -> None:
    os.link(root / "a/0.png", root / "b/hard.png")
    append(root / "test.txt", "b/hard.png 1")


def copied(root: Path) -> None:
    shutil.copy(root / "a/0.png", root / "b/copy.png")
    append(root / "test.txt", "b/copy.png 1")


IN_TEST: dict[str, Callable[[Path], None]] = {
    "its path": lambda root: append(root / "test.txt", "a/0.png 0"),
    "./": lambda root: append(root / "test.txt", "./a/0.png 0"),
    "..": lambda root: append(root / "test.txt", "b/../a/0.png 0"),
    "//": lambda root: append(root / "test.txt", "a//0.png 0"),
    "an absolute path": lambda root: append(root / "test.txt", f"{root}/a/0.png 0"),
    "a symbolic link": symlink,
    "a hard link": hard_link,
    "a copy": copied,
}


@pytest.mark.parametrize("how", IN_TEST)
def test_a_training_image_in_the_test_list_is_refused(how: str, tmp_path: Path) -> None:
    IN_TEST[how](write_lists(tmp_path))
    with pytest.raises(UserError, match="1 of 3 test images are training images, byte by byte") as error:
        load_lists(tmp_path)
    said = one_line(error)
    assert f"{tmp_path}/test.txt: line 3 (" in said and f"is {tmp_path}/train.txt: line 1 (a/0.png)" in said


def test_the_check_finds_the_same_pixels_in_another_file(tmp_path: Path) -> None:
    write_lists(tmp_path)
    with Image.open(tmp_path / "a/0.png") as image:
        image.save(tmp_path / "b/0.webp", lossless=True)
    append(tmp_path / "test.txt", "b/0.webp 1")
    load_lists(tmp_path)
    with pytest.raises(
        UserError, match=r"1 of 3 test images are training images, pixel by pixel: .*test.txt: line 3 \("
    ):
        list(check_images(data_of_lists(tmp_path), 0))


def test_an_image_under_two_labels_and_a_line_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_lists(tmp_path)
    append(tmp_path / "train.txt", "a/1.png 0")
    load_lists(tmp_path)
    train = tmp_path / "train.txt"
    assert capfd.readouterr().err == (
        f"note: 1 of 7 training images are there twice, byte by byte: {train}: line 7 (a/1.png) is {train}: line 2 "
        "(a/1.png)\n"
    )
    append(tmp_path / "train.txt", "a/1.png 1")
    with pytest.raises(UserError, match=r"1 of 8 training images carry two labels, byte by byte: .*line 8 .*line 2 "):
        load_lists(tmp_path)


def test_one_in_a_hundred_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_lists(tmp_path)
    for i in range(4, 120):
        fresh(tmp_path / f"a/{i}.png")
        append(tmp_path / "test.txt", f"a/{i}.png 0")
    append(tmp_path / "test.txt", "a/0.png 0")
    load_lists(tmp_path)
    assert "note: 1 of 119 test images are training images, byte by byte" in capfd.readouterr().err


@pytest.mark.parametrize("link", [True, False])
def test_one_image_in_two_training_classes_of_a_folder(link: bool, tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    first, second = tmp_path / "train/ant/0.png", tmp_path / "train/bee/zero.png"
    second.symlink_to(first) if link else shutil.copy(first, second)
    with pytest.raises(UserError, match="1 of 7 training images carry two labels, pixel by pixel") as error:
        folder(tmp_path)
    assert one_line(error).endswith(f": {second} is {first}; give each one label")


# Lists.

LINES = "a/0.png 0\na/1.png 0\na/2.png 0\nb/0.png 1\nb/1.png 1\nb/2.png 1\n"
WRITTEN: dict[str, Callable[[str], bytes]] = {
    "as asked": lambda text: text.encode(),
    "byte-order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "Windows": lambda text: text.replace("\n", "\r\n").replace("/", "\\").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "tabs": lambda text: text.replace(" ", "\t").encode(),
    "two spaces": lambda text: text.replace(" ", "  ").encode(),
    "blanks around": lambda text: text.replace("a/", "  a/").replace("\n", " \n\n").encode(),
    "commas": lambda text: text.replace(" ", ",").encode(),
    "commas and blanks": lambda text: text.replace(" ", ", ").encode(),
    "semicolons": lambda text: text.replace(" ", ";").encode(),
    "CSV": lambda text: ("path,label\n" + text.replace(" ", ",")).encode(),
    "CSV, quoted": lambda text: ('"filename","label"\n' + text.replace(" ", '","').replace("\n", '"\n"')).encode()
    .replace(b"\na", b'\n"a').removesuffix(b'"'),
    "CSV, label first": lambda text: (
        "label,image\n" + "".join(f"{line.split()[1]},{line.split()[0]}\n" for line in text.splitlines())
    ).encode(),
    "pandas": lambda text: (
        ",path,label,split\n"
        + "".join(f"{i},{line.replace(' ', ',')},train\n" for i, line in enumerate(text.splitlines()))
    ).encode(),
    "quotes": lambda text: text.replace("a/0.png", '"a/0.png"').replace("b/0.png", "'b/0.png'").encode(),
    "no end": lambda text: text.rstrip("\n").encode(),
    "./": lambda text: text.replace("a/", "./a/").encode(),
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
def test_lists_as_tools_write_them(how: str, tmp_path: Path) -> None:
    plain = load_lists(write_lists(tmp_path)).digest
    (tmp_path / "train.txt").write_bytes(WRITTEN[how](LINES))
    assert load_lists(tmp_path).digest == plain


def test_names_with_blanks_commas_and_other_letters(tmp_path: Path) -> None:
    write_lists(tmp_path)
    names = ["my cat, sleeping.png", "кот и 猫.png", "a  b.png", "c\u2028d.png", "1 2 3.png", "e\x0bf.png"]
    for name in names:
        fresh(tmp_path / "a" / name)
        append(tmp_path / "train.txt", f"a/{name} 0")
    raw = os.fsencode(tmp_path / "a") + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(fresh(tmp_path / "x.png").read_bytes())
    with (tmp_path / "train.txt").open("ab") as file:
        file.write(b"a/caf\xe9.png 0\n")
    found = {path.decode(errors="surrogateescape") for path in load_lists(tmp_path).train_paths}
    assert {f"a/{name}" for name in names} <= found and "a/caf\udce9.png" in found
    assert list(check_images(data_of_lists(tmp_path), 0)) == []


BAD_LINES = {
    "a/loop.png 0": "a/loop.png: cannot be read (Too many levels of symbolic links)",
    "a/0.png|0": "line 3: 'a/0.png|0': '|' is not a separator; write 'path label', with a space, a tab, a comma or",
    "a/0.png:0": "line 3: 'a/0.png:0': ':' is not a separator",
    "0 a/0.png": "line 3: '0 a/0.png' has no label; write 'path label'",
    "a/0.png 0.0": "line 3: 'a/0.png 0.0' has no label",
    "a/0.png cat": "line 3: 'a/0.png cat' has no label; write 'path label', with a space, a tab, a comma or a "
    "semicolon between, and a number from 0 as label",
    "a 0": "/a is not a file; name an image",
    "a/0.png 0 1": "a/0.png 0: no such file; 'a/0.png' is there, but the line holds more than a path and a label",
    "7,a/0.png,0": "7,a/0.png: no such file; 'a/0.png' is there, but the line holds more than a path and a label",
    "photos/a/0.png 0": "no such file; write 'a/0.png', the path below data.root",
    "/photos/a/0.png 0": "/photos/a/0.png leads out of data.root; write 'a/0.png', the path below data.root",
    f"{'x' * 310} 0": f"{'x' * 200}...{'x' * 50}: cannot be read (File name too long); is data.root right?",
    f"{'x/' * 9000}0.png 0": "...",
    "a/gone.png 0": "a/gone.png: no such file; is data.root right?",
    "b/../../x.png 0": "b/../../x.png leads out of data.root",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_line_that_cannot_be_read_says_why(line: str, tmp_path: Path) -> None:
    write_lists(tmp_path)
    (tmp_path / "a/loop.png").symlink_to("loop.png")
    lines = LINES.splitlines()
    (tmp_path / "train.txt").write_text("\n".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(UserError) as error:
        load_lists(tmp_path)
    assert BAD_LINES[line] in one_line(error) and f"{tmp_path}/train.txt: line 3: " in one_line(error)


def test_a_list_in_another_encoding_says_so(tmp_path: Path) -> None:
    write_lists(tmp_path)
    fresh(tmp_path / "a/café.png")
    with (tmp_path / "train.txt").open("ab") as file:
        file.write("a/café.png 0\n".encode("latin-1"))
    with pytest.raises(UserError, match="line 7: .*: no such file; the line is no UTF-8; save the list as UTF-8"):
        load_lists(tmp_path)


# Folders.


def test_junk_is_passed_over_and_all_else_is_named_at_once(tmp_path: Path) -> None:
    plain = folder(folder_of_images(tmp_path)).digest
    for place in (tmp_path, tmp_path / "train", tmp_path / "train/ant", tmp_path / "test/bee"):
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
            (place / name).write_bytes(b"junk")
        for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            (place / name).mkdir()
            (place / name / "0.png").write_bytes(b"junk")
    assert folder(tmp_path).digest == plain
    for i in range(5):
        (tmp_path / f"train/ant/notes-{i}.txt").write_text("x")
    (tmp_path / "test/bee/more").mkdir()
    with pytest.raises(UserError) as error:
        folder(tmp_path)
    named = "train/ant/notes-0.txt, train/ant/notes-1.txt, train/ant/notes-2.txt and 3 more"
    assert f"{tmp_path}: not a PNG, JPEG or WebP image: {named}; remove" in one_line(error)


def test_all_that_cannot_be_decoded_is_named_at_once(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    for name in ("ant/0.png", "ant/1.webp", "bee/0.png"):
        (tmp_path / "train" / name).write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        folder(tmp_path)
    said = one_line(error)
    assert "ant/0.png: cannot be decoded" in said and "(and 2 more: " in said and "bee/0.png" in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("test", "val", "test: no such folder; .* rename 'val' to 'test'"),
        ("test", "validation", "rename 'validation' to 'test'"),
        ("test", "Test", "rename 'Test' to 'test'"),
        ("train", "Train", "rename 'Train' to 'train'"),
        ("train", "training", "rename 'training' to 'train'"),
        ("train", "pictures", "train: no such folder; .*, and holds pictures, test"),
        (".", "archive", "set data.root to .*photos/archive"),
    ],
)
def test_folders_of_nearly_the_right_name(old: str, new: str, words: str, tmp_path: Path) -> None:
    root = folder_of_images(tmp_path / "photos")
    if old == ".":
        root.rename(tmp_path / "x")
        root.mkdir()
        (tmp_path / "x").rename(root / new)
    else:
        (root / old).rename(root / new)
    with pytest.raises(UserError, match=words) as error:
        folder(root)
    one_line(error)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("folder", b"b\xff"),
        ("folder", b"b\nee"),
        ("folder", b"b\x1b[31m"),
        ("image_list", b"b\xff"),
        ("image_list", b"b\a"),
    ],
)
def test_a_class_name_that_cannot_be_shown_is_refused(source: str, name: bytes, tmp_path: Path) -> None:
    if source == "folder":
        root = folder_of_images(tmp_path)
        for part in ("train", "test"):
            (root / part / "bee").rename(root / part / os.fsdecode(name))
    else:
        root = write_lists(tmp_path)
        (root / "b").rename(root / os.fsdecode(name))
        for part in ("train", "test"):
            path = root / f"{part}.txt"
            path.write_bytes(path.read_bytes().replace(b"b/", name + b"/"))
    with pytest.raises(UserError, match="is not UTF-8 text, or holds a control character; rename it") as error:
        folder(root) if source == "folder" else load_lists(root)
    assert one_line(error).isascii() and one_line(error).isprintable()


def test_one_accent_written_in_two_ways_is_one_class(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "train/bee").rename(tmp_path / "train/caf\u00e9")
    (tmp_path / "test/bee").rename(tmp_path / "test/cafe\u0301")
    assert folder(tmp_path).class_names == ("ant", "caf\u00e9")


@pytest.mark.parametrize("source", ["folder", "image_list"])
def test_a_home_folder_is_expanded(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if source == "folder":
        folder_of_images(tmp_path / "photos")
        assert folder(Path("~/photos")).class_names == ("ant", "bee")
    else:
        write_lists(tmp_path / "photos")
        assert data_of_lists(Path("~/photos")).train_list == str(tmp_path / "photos/train.txt")
        assert load_lists(Path("~/photos")).class_names == ("a", "b")


def test_a_first_line_without_a_label_says_how_to_name_columns(tmp_path: Path) -> None:
    write_lists(tmp_path)
    rows = "a/0.png,0\na/1.png,0\nb/0.png,1\n"
    (tmp_path / "train.txt").write_text("Image Path,Class Label\n" + rows)
    assert len(load_lists(tmp_path).train_paths) == 3
    (tmp_path / "train.txt").write_text("Bild,Klasse\n" + rows)
    with pytest.raises(UserError, match=r"'Bild,Klasse' has no label; .*a line that names the columns \(path,label\)"):
        load_lists(tmp_path)


def test_no_class_and_no_image_of_a_folder_is_left_out_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder_of_images(tmp_path)
    fresh(tmp_path / "train/beside.png")
    folder(tmp_path)
    assert f"note: {tmp_path}/train: beside.png in no folder of a class, and not read" in capfd.readouterr().err
    for name in ("caf\u00e9", "cafe\u0301"):
        (tmp_path / "train" / name).mkdir()
        fresh(tmp_path / "train" / name / "0.png")
    with pytest.raises(UserError, match="two folders are called 'caf\u00e9', their accents written in two ways"):
        folder(tmp_path)


def test_folders_of_folders_say_where_images_belong(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "train/ant/small").mkdir()
    with pytest.raises(UserError, match="folders within a class: train/ant/small; move their images into the class's"):
        folder(tmp_path)
    with pytest.raises(UserError, match=f"train/train: no such folder; .*; set data.root to {tmp_path}$"):
        folder(tmp_path / "train")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC, whatever its name says"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "is an AVIF, whatever its name says"),
        (b"II*\0" + b"\0" * 30, "is a TIFF, whatever its name says"),
        (b"<!DOCTYPE html><title>404</title>", "is an HTML page, whatever its name says"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
    ],
)
def test_what_is_no_image_says_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "train/ant/2.jpg").write_bytes(content)
    with pytest.raises(UserError, match=f"train/ant/2.jpg: {said}.*; replace it or take it out$"):
        folder(tmp_path)
