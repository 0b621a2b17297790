"""Features on disk: the trunk's own, keyed by everything they follow from, whole or not at all."""

from __future__ import annotations

import errno
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from training.branch.planted import ArrayCrops, planted, small_trunk

from graftsdk.errors import InputError, NonFiniteOutput
from graftsdk.training.branch import features
from graftsdk.training.branch.features import LiveFeatures, feature_path, store_features

CROPS = planted(11)[0]


@pytest.mark.parametrize(("precision", "error"), [("float16", 2**-11), ("float32", 1e-6)])
def test_they_are_the_trunks_own_in_every_view(tmp_path, precision, error):
    trunk, crops = small_trunk(), ArrayCrops(CROPS)
    stored = store_features(trunk, (8, 5), crops, 2, tmp_path, precision=precision, batch=4)
    indices, views = np.array([3, 10, 3, 0]), np.array([0, 1, 1, 0])
    for tap in (5, 8):
        with torch.no_grad():
            wanted = trunk.tap(
                torch.from_numpy(CROPS[indices]) / torch.tensor(1.0 + views).float()[:, None, None, None], tap
            )
        taken = stored[tap].take(indices, views)
        assert taken.dtype == torch.float32
        assert stored[tap].nbytes == 2 * 11 * wanted[0].numel() * np.dtype(precision).itemsize
        assert torch.allclose(taken, wanted, rtol=error, atol=1e-5)
        assert torch.equal(
            LiveFeatures(trunk, tap, crops, 2).take(indices, views).shape == taken.shape and taken, taken
        )


def test_live_features_are_those_of_the_disk(tmp_path):
    trunk, crops = small_trunk(), ArrayCrops(CROPS)
    stored = store_features(trunk, (6,), crops, 3, tmp_path, precision="float32")[6]
    indices, views = np.array([9, 1, 1, 4, 4]), np.array([2, 0, 1, 1, 0])
    assert torch.allclose(LiveFeatures(trunk, 6, crops, 3).take(indices, views), stored.take(indices, views), atol=1e-5)


def test_nothing_is_computed_twice(tmp_path):
    trunk, crops = small_trunk(), ArrayCrops(CROPS)
    store_features(trunk, (6, 8), crops, 2, tmp_path)
    assert crops.taken == 22  # both taps in one pass a view
    store_features(trunk, (6, 8), crops, 2, tmp_path)
    assert crops.taken == 22
    store_features(trunk, (6, 8), crops, 3, tmp_path)  # one view more
    assert crops.taken == 33
    store_features(trunk, (7, 8), crops, 1, tmp_path)  # one tap more
    assert crops.taken == 44


def test_what_they_follow_from_is_in_their_name(tmp_path):
    def name(trunk=None, tap=6, view=0, precision="float16", **crops):
        made = ArrayCrops(crops.pop("crops", CROPS), **crops)
        return feature_path(tmp_path, trunk or small_trunk(), tap, made, view, precision)

    moved = small_trunk()
    with torch.no_grad():
        moved.get_submodule("layer1.0.bn1").running_mean[0] += 1e-3
    late = small_trunk()
    with torch.no_grad():
        late.get_submodule("layer4.1.bn1").running_mean[0] += 1e-3
    others = [
        name(moved),
        name(tap=7),
        name(view=1),
        name(precision="float32"),
        name(digest="other images"),
        name(recipe="brighter"),
        name(crops=CROPS[:-1]),
    ]
    assert len({name(), *others}) == 1 + len(others)
    assert name(late) == name()  # a block behind the tap changes nothing


def test_a_changed_trunk_gets_its_own_features(tmp_path):
    crops, trunk = ArrayCrops(CROPS), small_trunk()
    store_features(trunk, (8,), crops, 1, tmp_path)
    with torch.no_grad():
        trunk.get_submodule("conv1").weight.mul_(1.1)
    stored = store_features(trunk, (8,), crops, 1, tmp_path, precision="float16")[8]
    with torch.no_grad():
        wanted = trunk.tap(torch.from_numpy(CROPS), 8)
    assert torch.allclose(stored.take(np.arange(11), np.zeros(11, int)), wanted, rtol=2**-11, atol=1e-5)
    assert crops.taken == 22


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" * len(data)])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    trunk, crops = small_trunk(), ArrayCrops(CROPS)
    before = store_features(trunk, (8,), crops, 1, tmp_path)[8].take(np.arange(11), np.zeros(11, int))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    after = store_features(trunk, (8,), crops, 1, tmp_path)[8].take(np.arange(11), np.zeros(11, int))
    assert torch.equal(before, after)


def test_a_disk_without_room_is_told_before_the_work(tmp_path, monkeypatch):
    crops = ArrayCrops(CROPS)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(OSError, match="expected room for .* MB of features") as caught:
        store_features(small_trunk(), (8,), crops, 1, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert crops.taken == 0


@pytest.mark.parametrize("failure", ["disk full", "interrupt"])
def test_nothing_is_left_of_a_pass_that_failed(tmp_path, failure):
    class Failing(ArrayCrops):
        def take(self, indices, view):
            if self.taken >= 4:
                if failure == "disk full":
                    raise OSError(errno.ENOSPC, "No space left on device")
                stop.set()
            return super().take(indices, view)

    stop = threading.Event()
    expected = (OSError, "take fewer views") if failure == "disk full" else (KeyboardInterrupt, None)
    with pytest.raises(expected[0], match=expected[1]):
        store_features(small_trunk(), (6, 8), Failing(CROPS), 1, tmp_path, batch=4, stop=stop)
    assert list(tmp_path.iterdir()) == []


def test_features_beyond_float16_are_refused(tmp_path):
    trunk = small_trunk()
    crops = ArrayCrops(CROPS * np.float32(1e6))
    with pytest.raises(NonFiniteOutput, match="tap 0.*keep them in float32"):
        store_features(trunk, (0,), crops, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert store_features(trunk, (0,), crops, 1, tmp_path, precision="float32")[0].views == 1


def test_a_trunk_that_could_move_is_refused(tmp_path):
    trunk = small_trunk().train()
    with pytest.raises(InputError, match="eval mode"):
        store_features(trunk, (8,), ArrayCrops(CROPS), 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match="expected a folder for features"):
        store_features(small_trunk(), (8,), ArrayCrops(CROPS), 1, tmp_path / "cache")


def test_a_wildly_shifted_batch_leaves_the_trunk_as_it_was():
    trunk = small_trunk()
    before = trunk.fingerprint(8)
    LiveFeatures(trunk, 8, ArrayCrops(CROPS * np.float32(50) + np.float32(300)), 1).take(
        np.arange(11), np.zeros(11, int)
    )
    assert trunk.fingerprint(8) == before
    assert features.frozen(trunk) is trunk and not any(p.requires_grad for p in trunk.parameters())
