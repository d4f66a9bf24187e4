"""``lazyrich measure --features`` gives the numbers of ``measure_arrays``, whatever the format of the files."""

import h5py
import numpy as np
import pytest
import torch
from printed import printed
from safetensors.torch import save_file

import lazyrich
from lazyrich.cli import main

RNG = np.random.default_rng(0)
ARRAYS = {"features": RNG.standard_normal((200, 6)), "outputs": RNG.standard_normal((200, 2)), "targets": np.arange(200) % 2}


def npy(folder):
    for name, values in ARRAYS.items():
        np.save(folder / f"{name}.npy", values)
    return {name: folder / f"{name}.npy" for name in ARRAYS}


def npz(folder):
    np.savez(folder / "all.npz", **ARRAYS)
    return {name: f"{folder / 'all.npz'}:{name}" for name in ARRAYS}


def one_in_each_npz(folder):
    for name, values in ARRAYS.items():
        np.savez(folder / f"{name}.npz", values)
    return {name: folder / f"{name}.npz" for name in ARRAYS}


def safetensors(folder):
    save_file({name: torch.from_numpy(values) for name, values in ARRAYS.items()}, folder / "all.safetensors")
    return {name: f"{folder / 'all.safetensors'}:{name}" for name in ARRAYS}


def pt(folder):
    for name, values in ARRAYS.items():
        torch.save(torch.from_numpy(values), folder / f"{name}.pt")
    return {name: folder / f"{name}.pt" for name in ARRAYS}


def hdf5(folder):
    with h5py.File(folder / "all.h5", "w") as file:
        for name, values in ARRAYS.items():
            file[f"group/{name}"] = values
    return {name: f"{folder / 'all.h5'}:group/{name}" for name in ARRAYS}


@pytest.mark.parametrize("write", [npy, npz, one_in_each_npz, safetensors, pt, hdf5])
def test_formats(write, tmp_path, capsys):
    options = [word for name, file in write(tmp_path).items() for word in (f"--{name}", str(file))]
    assert main(["measure", *options, "--out", str(tmp_path / "found"), "--no-progress", "--class-balanced"]) == 0
    expected = lazyrich.measure_arrays(**ARRAYS, class_balanced=True)
    assert printed(expected) in capsys.readouterr().out
    assert lazyrich.load(tmp_path / "found/richness.json").to_dict() == expected.to_dict()


def test_every_array_has_its_option(tmp_path, capsys):
    start, weight, bias = RNG.standard_normal((200, 6)), RNG.standard_normal((2, 6)), RNG.standard_normal(2)
    more = {"start_features": start, "head_weight": weight, "head_bias": bias}
    options = ["--features", str(npy(tmp_path)["features"])]
    for name, values in more.items():
        np.save(tmp_path / f"{name}.npy", values)
        options += [f"--{name.replace('_', '-')}", str(tmp_path / f"{name}.npy")]
    assert main(["measure", *options, "--no-progress"]) == 0
    assert printed(lazyrich.measure_arrays(ARRAYS["features"], **more)) in capsys.readouterr().out
