"""Features on disk: equal to the trunk's, computed once an image, never those of another trunk, never half written."""

from __future__ import annotations

import errno
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from training.mining.small_labels import picture

from graftsdk.errors import FingerprintMismatch, InputError, NonFiniteOutput
from graftsdk.models import Trunk
from graftsdk.preprocess import CropSpec, read_crop
from graftsdk.training.mining import FeatureStore, features

CROP = CropSpec((32, 32))


def small_trunk(seed=0):
    return Trunk.create("resnet18", (32, 32), width=0.05, seed=seed, crop=CROP)


@pytest.fixture(scope="module")
def trunk():
    return small_trunk()


@pytest.fixture
def paths(tmp_path, rng, monkeypatch):
    """Ten images, four to a file of features."""
    monkeypatch.setattr(features, "PART_ROWS", 4)
    found = [tmp_path / f"{number}.png" for number in range(10)]
    for path in found:
        cv2.imwrite(str(path), picture(rng, "yes", (40, 32)))
    return found


class Reader:
    """Reads crops, and remembers of which files."""

    def __init__(self, fails=(), error=None):
        self.seen, self._fails, self._error = [], fails, error

    def __call__(self, path):
        self.seen.append(path.name)
        if path.name in self._fails:
            raise self._error
        return read_crop(path, CROP)


def test_rows_are_the_mean_of_the_last_tap(trunk, paths, tmp_path):
    found = FeatureStore(tmp_path / "f", trunk).features(paths, Reader(), batch=3)
    with torch.inference_mode():
        wanted = trunk(torch.from_numpy(np.stack([read_crop(path, CROP) for path in paths]))).mean(dim=(2, 3)).numpy()
    assert found.shape == wanted.shape == (10, trunk.channels(8))
    assert found[:].dtype == np.float32
    assert found[:] == pytest.approx(wanted, rel=1e-3, abs=1e-6)  # float16 on disk
    some = np.array([7, 2, 2, 9])
    assert (found[some] == found[:][some]).all() and (found.only(slice(4, 8))[1:3] == found[5:7]).all()
    assert len(found.maps) == 3


def test_each_image_passes_once_whatever_the_order(trunk, paths, tmp_path):
    store, first, later = FeatureStore(tmp_path / "f", trunk), Reader(), Reader()
    shutil.copy(paths[0], paths[1])  # the same picture twice
    rows = store.features(paths[:6], first)[:]
    assert len(first.seen) == 5 and (rows[0] == rows[1]).all()
    again = FeatureStore(tmp_path / "f", trunk).features(paths[::-1], later)
    assert sorted(later.seen) == ["6.png", "7.png", "8.png", "9.png"]
    assert (again[:][::-1][:6] == rows).all()


def test_another_trunk_meets_none_of_them(trunk, paths, tmp_path):
    reader = Reader()
    one = FeatureStore(tmp_path / "f", trunk).features(paths, reader)[:]
    other = FeatureStore(tmp_path / "f", small_trunk(1)).features(paths, reader)[:]
    assert len(reader.seen) == 20 and (one != other).any()


def test_a_damaged_file_is_computed_again(trunk, paths, tmp_path, caplog):
    store = FeatureStore(tmp_path / "f", trunk)
    rows = store.features(paths, Reader())[:]
    files = sorted(store.folder.iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-7])
    files[1].write_bytes(b"no array")
    np.save(files[2], np.ones((3, 5)))
    reader = Reader()
    assert (store.features(paths, reader)[:] == rows).all() and len(reader.seen) == 10
    assert caplog.text.count("no whole file of features") >= 3


def test_unreadable_images_are_named_and_the_others_kept(trunk, paths, tmp_path):
    paths[3].write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    paths[7].write_bytes(paths[7].read_bytes()[:100])
    store = FeatureStore(tmp_path / "f", trunk)
    with pytest.raises(InputError, match=r"found 2 others: .*3\.png.*; .*7\.png"):
        store.features(paths, Reader())
    reader = Reader()
    store.features([path for path in paths if path not in (paths[3], paths[7])], reader)
    assert reader.seen == []
    paths[5].unlink()
    with pytest.raises(InputError, match=r"5\.png: expected a file that can be read"):
        store.features(paths, Reader())


def test_what_was_computed_before_ctrl_c_stays(trunk, paths, tmp_path):
    store = FeatureStore(tmp_path / "f", trunk)
    with pytest.raises(KeyboardInterrupt):
        store.features(paths, Reader(["8.png"], KeyboardInterrupt()), batch=2)
    reader = Reader()
    store.features(paths, reader)
    assert set(reader.seen) <= {"6.png", "7.png", "8.png", "9.png"}


def test_a_full_disk_is_told_and_nothing_half_written(trunk, paths, tmp_path, monkeypatch):
    store, count = FeatureStore(tmp_path / "f", trunk), 0
    fsync = os.fsync

    def full(descriptor):
        nonlocal count
        count += 1
        if count > 2:  # the first file and its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="found a full disk; make room") as caught:
            store.features(paths, Reader(), batch=2)
    assert caught.value.errno == errno.ENOSPC
    assert [path.suffix for path in store.folder.iterdir()] == [".npy"]
    reader = Reader()
    store.features(paths, reader)
    assert len(reader.seen) == 6

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match="found a full disk"):  # before any work
        FeatureStore(tmp_path / "g", trunk).features(paths, Reader())
    assert (store.features(paths, Reader())[:] >= 0).all()  # nothing to write, no room needed


def test_values_beyond_float16_are_kept_as_float32(paths, tmp_path):
    trunk = small_trunk()
    with torch.no_grad():
        trunk.get_submodule("conv1").weight *= 1e6
    rows = FeatureStore(tmp_path / "f", trunk).features(paths, Reader())
    assert rows[:].max() > 65504 and np.isfinite(rows[:]).all()
    assert {part.dtype["features"].base for part in rows.maps} == {np.dtype("<f4")}


def test_a_trunk_that_gives_nan_names_the_image(paths, tmp_path):
    trunk = small_trunk()
    with torch.no_grad():
        trunk.get_submodule("conv1").weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteOutput, match=r"0\.png: expected finite features"):
        FeatureStore(tmp_path / "f", trunk).features(paths, Reader())


def test_a_trunk_must_not_change(paths, tmp_path):
    trunk = small_trunk()
    store = FeatureStore(tmp_path / "f", trunk)

    def read(path):
        with torch.no_grad():
            trunk.get_submodule("conv1").weight[0, 0, 0, 0] += 1
        return read_crop(path, CROP)

    with pytest.raises(FingerprintMismatch, match="changed while features were computed"):
        store.features(paths, read)
    assert list(store.folder.iterdir()) == []
    with pytest.raises(InputError, match="found training mode"):
        FeatureStore(tmp_path / "f", trunk.train())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder that can be made"):
        FeatureStore(tmp_path / "file", small_trunk())
