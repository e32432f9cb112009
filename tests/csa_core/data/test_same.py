"""Which files are the same, and from how many on that is refused."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core.data.same import TAIL, Part, check_same, file_keys
from csa_core.errors import UserError

CONTENTS = st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"x" * TAIL + b"a", b"y" * TAIL + b"a"]), max_size=6)


@settings(max_examples=60)
@given(CONTENTS)
def test_files_have_one_key_where_they_have_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    """Of one size, with the same end, and with both the same: each alone makes no two files the same."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    keys = file_keys(paths, [path.stat() for path in paths])
    digests = [hashlib.sha256(content).digest() for content in contents]
    assert [[a == b for a in keys] for b in keys] == [[a == b for a in digests] for b in digests]


def test_a_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("file", "hard", "soft")]
    paths[0].write_bytes(b"a")
    os.link(paths[0], paths[1])
    paths[2].symlink_to(paths[0])
    assert len(set(file_keys(paths, [path.stat() for path in paths]))) == 1


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_one_in_a_hundred_is_a_note_and_more_are_refused(shared: int, capfd: pytest.CaptureFixture[str]) -> None:
    train = Part(range(50), [0] * 50, str)
    test = Part([*range(shared), *range(1000, 1100 - shared)], [0] * 100, str)
    if shared > 1:
        with pytest.raises(UserError, match="^2 of 100 test images are training images, by number: 0 is 0; take them"):
            check_same(train, test, "by number")
    else:
        check_same(train, test, "by number")
        assert ("1 of 100 test images are training images" in capfd.readouterr().err) == bool(shared)
