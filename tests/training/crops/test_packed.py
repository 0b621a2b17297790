"""Crops in one mapped file: the serving crop in bytes, one file for one set and specification, whole or not at all."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from training.crops.drawn_labels import drawn_set

from graftsdk.errors import DecodeError, InputError, PlanPathError
from graftsdk.plan import CropSpec
from graftsdk.preprocess import read_crop
from graftsdk.training.crops import packed
from graftsdk.training.crops.packed import normalised, pack_crops, packed_path, whole_values

SPEC = CropSpec((32, 16), fill=7)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return drawn_set(tmp_path_factory.mktemp("root"), "big hat é", {"train": 4, "val": 2, "test": 2})


@pytest.mark.parametrize(
    "spec",
    [SPEC, replace(SPEC, order="bgr"), replace(SPEC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="letterbox")],
    ids=["rgb", "bgr", "half"],
)
def test_they_are_the_crops_that_are_served_to_half_a_byte(labels, tmp_path, spec):
    crops = pack_crops(labels, "train", spec, tmp_path / "cache", threads=2)
    served = np.stack([read_crop(image.path, spec) for image in labels.train])
    again = normalised(torch.from_numpy(np.array(crops.pixels)), spec)
    assert again.is_contiguous(memory_format=torch.channels_last)
    steps = np.abs(again.numpy() - served) * np.array(spec.std, np.float32)[:, None, None] * 255
    assert 0 < steps.max() <= 0.5 + 1e-3
    assert crops.targets.tolist() == [image.target for image in labels.train] and crops.counts() == (4, 4)
    assert len(crops) == 8 and crops.classes == ("no", "yes") and len(set(crops.identities)) == 8
    assert isinstance(crops.pixels, np.memmap) and not crops.pixels.flags.writeable


def test_bytes_come_back_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 9, 8, 3)).astype(np.uint8)
    assert np.array_equal(whole_values(normalised(torch.from_numpy(pixels), SPEC)[0].numpy(), SPEC), pixels[0])


def test_what_is_there_is_read_and_nothing_else_is(labels, tmp_path, monkeypatch):
    first = pack_crops(labels, "train", SPEC, tmp_path)
    assert pack_crops(labels, "val", SPEC, tmp_path).split == "val"
    assert pack_crops(labels, "train", replace(SPEC, fill=0), tmp_path).spec.fill == 0
    assert pack_crops(replace(labels, digest="0" * 64), "train", SPEC, tmp_path) is not None
    assert len(os.listdir(tmp_path)) == 4 and all(name.startswith("big_hat_.") for name in os.listdir(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(packed, "_write", None)
        assert np.array_equal(pack_crops(labels, "train", SPEC, tmp_path).pixels, first.pixels)
    os.utime(labels.train[0].path)  # perhaps another image of the same size
    pack_crops(labels, "train", SPEC, tmp_path)
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: b"x" * len(data)]
)
def test_a_damaged_file_is_made_anew(labels, tmp_path, caplog, damage):
    wanted = np.array(pack_crops(labels, "val", SPEC, tmp_path).pixels)
    path = packed_path(labels, "val", SPEC, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(pack_crops(labels, "val", SPEC, tmp_path).pixels, wanted)
    assert "it is made anew" in caplog.text


def test_refusals(labels, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="split: expected one of train, val, test, found 'all'"):
        pack_crops(labels, "all", SPEC, tmp_path)
    with pytest.raises(InputError, match="'big hat é': expected images in its split val, found none"):
        pack_crops(replace(labels, val=()), "val", SPEC, tmp_path)
    with pytest.raises(PlanPathError, match="expected a folder for packed crops"):
        pack_crops(labels, "val", SPEC, labels.val[0].path / "none")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    images = (*labels.val, replace(labels.val[0], path=broken))
    with pytest.raises((DecodeError, InputError), match=r"broken\.png"):
        pack_crops(replace(labels, val=images), "val", SPEC, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_a_full_disk_leaves_nothing(labels, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pack_crops(labels, "val", SPEC, tmp_path)
    assert os.listdir(tmp_path) == []
