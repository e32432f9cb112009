"""Files that are whole or absent, and digests that notice every changed byte."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core import store
from csa_core.errors import UserError

TENSORS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.array(5), "empty": np.zeros((0, 3))}
META = {"epoch": 3, "history": [{"loss": 0.1}]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("store") / "x.safetensors"
    store.write_tensors(path, TENSORS, META)
    return path.read_bytes()


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    store.write_tensors(path, TENSORS, META)
    tensors, meta, digest = store.read_tensors(path)
    assert meta == META and digest == store.tensors_digest(TENSORS, META)
    for name, array in TENSORS.items():
        assert np.array_equal(tensors[name], array) and tensors[name].dtype == array.dtype
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"], "a temporary file was left behind"


@settings(max_examples=80)
@given(data=st.data())
def test_every_flipped_bit_and_every_cut_is_noticed(
    data: st.DataObject, written: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    place = data.draw(st.integers(0, len(written) - 1))
    if data.draw(st.booleans()):
        damaged = bytearray(written[:place])
    else:
        damaged = bytearray(written)
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        tensors, meta, _ = store.read_tensors(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:  # a flip in the header's padding changes nothing that is read
        assert meta == META and all(np.array_equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/x: cannot be written"):
        store.write_bytes(tmp_path / "file" / "x", b"content")


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    store.write_bytes(path, b"old")
    path.with_name("y").mkdir()
    with pytest.raises(UserError):
        store.write_bytes(path.with_name("y"), b"new")  # a folder cannot be replaced by a file
    assert path.read_bytes() == b"old" and sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


def test_equal_values_have_equal_digests_and_nan_is_refused() -> None:
    assert store.digest({"a": 1, "b": [0.1]}) == store.digest({"b": [0.1], "a": 1})
    assert store.digest({"a": 1}) != store.digest({"a": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.canonical({"a": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_damaged_json_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(UserError, match="m.json: is not JSON"):
        store.read_json(tmp_path / "m.json")
    with pytest.raises(UserError, match="gone.json: cannot be read"):
        store.read_json(tmp_path / "gone.json")
