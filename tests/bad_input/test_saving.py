"""Estimators on disk: what comes back, and files that are damaged or meant to do harm."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from fullspan import estimators
from fullspan.core.errors import CheckpointError
from fullspan.estimators.saving import Saveable
from fullspan.estimators.table import Column, TableEncoder


def _holding(value: Any) -> TableEncoder:
    encoder = TableEncoder([Column("a", "category", ["x", "ü"])])
    vars(encoder)["value_"] = value
    return encoder


VALUES = [
    None,
    True,
    3,
    -0.0,
    float("inf"),
    "text",
    (1, "two", [3.0]),
    {1: "a", "b": (None,)},
    np.float32(1.5),
    np.int64(-3),
    np.bool_(True),
]
ARRAYS = [
    np.arange(6, dtype=np.int32).reshape(2, 3),
    np.array([1.5, np.nan, -np.inf]),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.zeros((0, 4), np.uint8),
    np.array(["a", "bc"]),
    np.array(["a", None, 3], dtype=object).reshape(3, 1),
    np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
    np.array(7.5),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value: Any, tmp_path: Path) -> None:
    _holding(value).save(tmp_path / "e")
    back = estimators.load(tmp_path / "e")
    assert type(back.value_) is type(value) and back.value_ == value
    assert back.columns[0].categories == ["x", "ü"]


@pytest.mark.parametrize("array", ARRAYS, ids=repr)
def test_arrays_come_back_as_they_were(array: np.ndarray, tmp_path: Path) -> None:
    _holding(array).save(tmp_path / "e")
    back = estimators.load(tmp_path / "e").value_
    assert back.dtype == array.dtype and back.shape == array.shape and back.flags.writeable
    np.testing.assert_array_equal(back, array)
    assert back.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize("value", [print, LinearRegression(), {1, 2}, object(), np.random.RandomState(0)])
def test_what_cannot_be_saved_is_named_and_nothing_is_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"TableEncoder\.value_\[0\] is a "):
        _holding([value]).save(tmp_path / "e")
    assert list(tmp_path.iterdir()) == []


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        estimators.load(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="not a saved estimator"):
        estimators.load(tmp_path / "text")


def _rewrite(path: Path, change: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _describe(change: Any) -> Any:
    def rewrite(members: dict[str, bytes]) -> None:
        description = json.loads(members["estimator.json"])
        change(description)
        members["estimator.json"] = json.dumps(description).encode()

    return rewrite


def _set_class(name: str) -> Any:
    return _describe(lambda d: d["estimator"]["object"].__setitem__(0, name))


DAMAGE: dict[str, tuple[Any, str]] = {
    "newer format": (_describe(lambda d: d.update(format=99)), "update fullspan"),
    "no format": (_describe(lambda d: d.pop("format")), "not a saved estimator"),
    "no description": (lambda m: m.pop("estimator.json"), "damaged"),
    "not JSON": (lambda m: m.update({"estimator.json": b"{"}), "damaged"),
    "class of another library": (_set_class("os:system"), "none of fullspan's"),
    "function": (_set_class("fullspan.estimators.table:infer_columns"), "no class that can be saved"),
    "other class": (_set_class("fullspan.estimators.table:DataError"), "no class that can be saved"),
    "attribute of a class": (_set_class("fullspan.estimators.table:TableEncoder.encode"), "does not have"),
    "unknown class": (_set_class("fullspan.estimators.table:Nothing"), "does not have"),
    "unknown kind": (_describe(lambda d: d.update(estimator={"pickle": "x"})), "unknown kind"),
    "no array": (lambda m: m.pop("arrays/0.npy"), "damaged"),
    "short array": (lambda m: m.update({"arrays/0.npy": m["arrays/0.npy"][:-8]}), "wrong number of bytes"),
    "long array": (lambda m: m.update({"arrays/0.npy": m["arrays/0.npy"] + b"x"}), "wrong number of bytes"),
    "huge array": (
        lambda m: m.update({"arrays/0.npy": m["arrays/0.npy"].replace(b"(3,)", b"(9999999999,)")}),
        "damaged",
    ),
    "array of objects": (
        lambda m: m.update({"arrays/0.npy": m["arrays/0.npy"].replace(b"<f8", b"|O ")}),
        "damaged|larger than its bytes",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "e"
    _holding(np.arange(3.0)).save(path)
    _rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        estimators.load(path)


def test_every_cut_and_every_flipped_byte_is_an_error_or_the_same(tmp_path: Path) -> None:
    path = tmp_path / "e"
    _holding(np.arange(3.0)).save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            estimators.load(path)
    for position in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[position] ^= 0x55
        path.write_bytes(flipped)
        try:
            back = estimators.load(path)
        except CheckpointError:
            continue
        assert isinstance(back, Saveable) and back.value_.tolist() == [0, 1, 2]


def test_compressed_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("estimator.json", b" " * 10_000_000)
    with pytest.raises(CheckpointError, match="compressed"):
        estimators.load(path)
