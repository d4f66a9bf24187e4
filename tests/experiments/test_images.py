"""Readers, downloads and what is drawn from them."""

import gzip
import hashlib
import http.server
import io
import math
import os
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch

from lazyrich import DataError
from lazyrich.experiments import Digits, Images, ModularArithmetic
from lazyrich.experiments.ingredients import images
from lazyrich.experiments.ingredients.data import augment
from lazyrich.experiments.ingredients.images import SOURCES, Source, data_folder, read_images

IDX = SOURCES["mnist"].files


def idx(values):
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.astype(np.uint8).tobytes()


def small_mnist(n=30):
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", n), ("t10k", n // 2)):
        parts[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28))
        parts[f"{part}-labels-idx1-ubyte"] = np.arange(count) % 10
    return parts


@pytest.fixture
def mnist(tmp_path):
    """A small data set in MNIST's format."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    parts = small_mnist()
    for name, values in parts.items():
        (folder / name).write_bytes(idx(values))
    return tmp_path, parts


def cifar(tmp_path, *, n=20, batch=None, name="data_batch_1"):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    for file in SOURCES["cifar10"].files:
        content = {b"data": rng.integers(0, 256, (n, 3072)).astype(np.uint8), b"labels": [k % 10 for k in range(n)]}
        with (folder / file).open("wb") as f:
            pickle.dump(batch if batch is not None and file == name else content, f, protocol=2)
    return folder


class TestIdx:
    def test_values(self, mnist):
        root, parts = mnist
        train, train_labels, test, test_labels = read_images("mnist", root)
        assert np.array_equal(train[:, 0], parts[IDX[0]])
        assert np.array_equal(train_labels, parts[IDX[1]])
        assert np.array_equal(test[:, 0], parts[IDX[2]])
        assert np.array_equal(test_labels, parts[IDX[3]])

    def test_compressed_files_are_read_too(self, mnist):
        root, parts = mnist
        path = root / "MNIST" / "raw" / IDX[0]
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        assert np.array_equal(read_images("mnist", root)[0][:, 0], parts[IDX[0]])

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda raw: raw[:-1], r"announces \(30, 28, 28\), and 23,519 values follow"),
            (lambda raw: b"\x00\x00\x0d" + raw[3:], "does not start as an IDX file"),
            (lambda raw: b"", "does not start as an IDX file"),
            (lambda raw: raw[:7], "does not start as an IDX file"),
        ],
    )
    def test_damaged(self, mnist, damage, message):
        path = mnist[0] / "MNIST" / "raw" / IDX[0]
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match=message):
            read_images("mnist", mnist[0])

    def test_damaged_compression(self, mnist):
        path = mnist[0] / "MNIST" / "raw" / IDX[0]
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
        path.unlink()
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
            read_images("mnist", mnist[0])

    def test_labels_and_images_that_do_not_match(self, mnist):
        (mnist[0] / "MNIST" / "raw" / IDX[1]).write_bytes(idx(np.arange(29) % 10))
        with pytest.raises(DataError, match="30 images and 29 labels"):
            read_images("mnist", mnist[0])

    def test_a_label_that_is_no_class(self, mnist):
        (mnist[0] / "MNIST" / "raw" / IDX[1]).write_bytes(idx(np.full(30, 10)))
        with pytest.raises(DataError, match="labels up to 10, and mnist has 10 classes"):
            read_images("mnist", mnist[0])


class TestCifar:
    def test_values(self, tmp_path):
        cifar(tmp_path)
        train, labels, test, test_labels = read_images("cifar10", tmp_path)
        with (tmp_path / "cifar-10-batches-py" / "data_batch_2").open("rb") as f:
            second = pickle.load(f)  # our own file of the line above
        assert np.array_equal(train[20:40].reshape(20, -1), second[b"data"])
        assert labels[20:40].tolist() == second[b"labels"]
        assert (train.shape, test.shape, len(test_labels)) == ((100, 3, 32, 32), (20, 3, 32, 32), 20)

    def test_fine_labels_of_cifar100(self, tmp_path):
        folder = tmp_path / "cifar-100-python"
        folder.mkdir()
        for file in ("train", "test"):
            content = {b"data": np.zeros((100, 3072), np.uint8), b"fine_labels": list(range(100)), b"coarse_labels": [0] * 100}
            (folder / file).write_bytes(pickle.dumps(content))
        assert read_images("cifar100", tmp_path)[1].tolist() == list(range(100))

    def test_a_pickle_cannot_run_code(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/ran",)

        cifar(tmp_path, batch={b"data": Evil(), b"labels": [0]})
        with pytest.raises(DataError, match=r"data_batch_1 is damaged: UnpicklingError: it names (posix|nt)\.system"):
            read_images("cifar10", tmp_path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "batch",
        [{b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}, {b"labels": [0]}, [1], {b"data": [1], b"labels": [1]}],
    )
    def test_another_content(self, tmp_path, batch):
        cifar(tmp_path, batch=batch)
        with pytest.raises(DataError, match="data_batch_1 is damaged"):
            read_images("cifar10", tmp_path)

    def test_cut_short(self, tmp_path):
        path = cifar(tmp_path) / "test_batch"
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(DataError, match="test_batch is damaged"):
            read_images("cifar10", tmp_path)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine: address, folder."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/", folder
    running.shutdown()
    running.server_close()
    thread.join()


def md5(content):
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the download library's sockets
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestDownload:
    def serve_mnist(self, server, monkeypatch, *, wrong=False):
        address, folder = server
        checksums = {}
        for name, values in small_mnist().items():
            content = gzip.compress(idx(values))
            (folder / f"{name}.gz").write_bytes(content)
            checksums[f"{name}.gz"] = md5(b"another" if wrong else content)
        monkeypatch.setitem(SOURCES, "mnist", Source("MNIST/raw", IDX, address, checksums, 10))

    def test_missing_files_are_downloaded(self, server, monkeypatch, tmp_path):
        self.serve_mnist(server, monkeypatch)
        train, *_ = read_images("mnist", tmp_path / "new")
        assert np.array_equal(train[:, 0], small_mnist()[IDX[0]])
        server[1].joinpath(f"{IDX[0]}.gz").unlink()
        read_images("mnist", tmp_path / "new")  # and not again

    def test_a_wrong_checksum_leaves_nothing(self, server, monkeypatch, tmp_path):
        self.serve_mnist(server, monkeypatch, wrong=True)
        with pytest.raises(DataError, match=r"(?s)mnist: .*could not be downloaded: .*hash.*data= or LAZYRICH_DATA"):
            read_images("mnist", tmp_path / "new")
        assert [p for p in (tmp_path / "new").rglob("*") if p.is_file()] == []

    def test_no_network(self, monkeypatch, tmp_path):
        source = Source("MNIST/raw", IDX, "http://127.0.0.1:9/", SOURCES["mnist"].checksums, 10)
        monkeypatch.setitem(SOURCES, "mnist", source)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte, .* not found in .*MNIST/raw, and http://127\.0\.0\.1:9/"):
            read_images("mnist", tmp_path)

    def test_an_archive_writes_nothing_outside_its_folder(self, server, monkeypatch, tmp_path):
        address, folder = server
        source = cifar(tmp_path)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for file in SOURCES["cifar10"].files:
                tar.add(source / file, f"cifar-10-batches-py/{file}")
            evil = tarfile.TarInfo("../evil")
            evil.size = 4
            tar.addfile(evil, io.BytesIO(b"evil"))
        (folder / "cifar-10-python.tar.gz").write_bytes(packed.getvalue())
        checksums = {"cifar-10-python.tar.gz": md5(packed.getvalue())}
        monkeypatch.setitem(SOURCES, "cifar10", Source("cifar-10-batches-py", SOURCES["cifar10"].files, address, checksums, 10))
        root = tmp_path / "a" / "b"
        root.mkdir(parents=True)
        assert len(read_images("cifar10", root)[1]) == 100
        assert not list(tmp_path.rglob("evil"))

    def test_unknown(self, tmp_path):
        with pytest.raises(DataError, match="no data set 'imagenet'; there are: mnist, fashion-mnist, cifar10, cifar100"):
            read_images("imagenet", tmp_path)


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LAZYRICH_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder(str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match="data='nowhere' is not a folder"):  # and is not created, because it may be mistyped
        data_folder("nowhere")
    monkeypatch.delenv("LAZYRICH_DATA")
    assert data_folder().name == "lazyrich"


@pytest.mark.skipif(not os.environ.get("LAZYRICH_DATA"), reason="LAZYRICH_DATA names no folder with the real data sets")
@pytest.mark.parametrize("name", list(SOURCES))
def test_real_files(name):
    train, labels, test, test_labels = read_images(name, data_folder())
    count, each = (60_000, None) if "mnist" in name else (50_000, 50_000 // SOURCES[name].num_classes)
    assert (len(train), len(labels), len(test), len(test_labels)) == (count, count, 10_000, 10_000)
    assert each is None or (np.bincount(labels) == each).all()


class TestImages:
    def test_same_seed_same_images(self, mnist):
        first, again, other = (Images("mnist", train=20, test=10).load(seed, mnist[0]) for seed in (0, 0, 1))
        assert torch.equal(first.train.inputs, again.train.inputs)
        assert torch.equal(first.test.labels, again.test.labels)
        assert not torch.equal(first.train.inputs, other.train.inputs)

    def test_pixels_are_shares_of_255(self, mnist):
        data = Images("mnist").load(0, mnist[0])
        whole = torch.from_numpy(mnist[1][IDX[0]]).float() / 255
        assert data.train.inputs.sum().item() == pytest.approx(whole.sum().item(), rel=1e-5)

    def test_encoded(self, mnist):
        plain, data = (Images("mnist", encoded=e).load(0, mnist[0]) for e in (0.0, 1.5))
        for split, before, right in ((data.train, plain.train, True), (data.test, plain.test, False)):
            changed = split.inputs != before.inputs
            assert (changed.flatten(1).sum(1) <= 1).all()
            written = torch.stack([(row == 1.5).float().argmax() for row in split.inputs[:, 0, 0, :10]])
            assert (split.inputs[:, 0, 0, :10] == 1.5).sum(1).eq(1).all()
            assert torch.equal(written, split.labels) is right

    def test_shuffled_labels_are_the_same_labels(self, mnist):
        plain, half, whole = (Images("mnist", shuffled=s).load(0, mnist[0]) for s in (0.0, 0.5, 1.0))
        for data in (half, whole):
            assert torch.equal(data.train.labels.sort().values, plain.train.labels.sort().values)
            assert torch.equal(data.test.labels, plain.test.labels)
        changed = [int((d.train.labels != plain.train.labels).sum()) for d in (half, whole)]
        assert 0 < changed[0] <= 15 < changed[1]

    def test_errors(self, mnist, tmp_path):
        with pytest.raises(DataError, match="mnist has 30 images to train, got train=31"):
            Images("mnist", train=31).load(0, mnist[0])
        with pytest.raises(DataError, match=r"a share between 0 and 1, got 2"):
            Images("mnist", shuffled=2.0).load(0, mnist[0])
        cifar(tmp_path)
        with pytest.raises(DataError, match="grey images of 28"):
            Images("cifar10", encoded=1.0).load(0, tmp_path)

    def test_cifar_is_standardised_by_its_training_images(self, tmp_path):
        cifar(tmp_path, n=50)
        data = Images("cifar10", train=200).load(0, tmp_path)
        spread, mean = torch.std_mean(data.train.inputs, dim=(0, 2, 3))
        assert torch.allclose(mean, torch.zeros(3), atol=1e-5)
        assert torch.allclose(spread, torch.ones(3), atol=1e-5)


class TestAugment:
    def test_stays_within_its_bounds(self):
        """A dot in the middle goes at most 4 pixels each way, turned by 15°, and half a pixel of resampling."""
        dots = torch.zeros(500, 1, 33, 33)
        dots[:, 0, 16, 16] = 1
        moved = augment(dots, 0)
        place = torch.arange(33.0)
        for dim in (2, 3):
            centre = (moved.sum(dim)[:, 0] * place).sum(1) / moved.sum((1, 2, 3))
            assert (centre - 16).abs().max() < 4 * (math.cos(math.radians(15)) + math.sin(math.radians(15))) + 0.5
            assert {-4, -3, -2, -1, 0, 1, 2, 3, 4} <= set((centre - 16).round().int().tolist())

    def test_half_are_flipped(self):
        """A bright right half stays on the right in half of the images, for ±15° and 4 pixels do not turn it over."""
        images = torch.zeros(1000, 1, 32, 32)
        images[..., 16:] = 1
        moved = augment(images, 1)
        right = moved[..., 20:].mean((1, 2, 3)) > moved[..., :12].mean((1, 2, 3))
        assert 440 < int(right.sum()) < 560

    def test_seeded(self):
        x = torch.rand(5, 3, 32, 32)
        assert torch.equal(augment(x, 3), augment(x, 3))
        assert not torch.equal(augment(x, 3), augment(x, 4))


class TestWithoutFiles:
    @pytest.mark.parametrize(
        ("operation", "result"),
        [("addition", lambda a, b: a + b), ("subtraction", lambda a, b: a - b), ("multiplication", lambda a, b: a * b)],
    )
    def test_modular_arithmetic(self, operation, result, tmp_path):
        data = ModularArithmetic(7, 0.5, operation).load(0, tmp_path)
        seen = set()
        for split in (data.train, data.test):
            for (a, sign, b, equals), label in zip(split.inputs.tolist(), split.labels.tolist(), strict=True):
                assert (sign, equals, label) == (7, 8, result(a, b) % 7)
                seen.add((a, b))
        assert (len(seen), len(data.train), len(data.test)) == (49, 24, 25)
        with pytest.raises(DataError, match="operation must be one of addition"):
            ModularArithmetic(7, 0.5, "division").load(0, tmp_path)

    def test_digits(self, tmp_path):
        data = Digits().load(0, tmp_path)
        assert (len(data.train), len(data.test), data.num_classes) == (1437, 360, 10)
        assert data.train.inputs.shape[1:] == (1, 8, 8)
        assert 0 <= data.train.inputs.min() <= data.train.inputs.max() <= 1


def test_every_source_names_its_files():
    for source in SOURCES.values():
        assert len(source.files) in (2, 4, 6)
        assert all(checksum.startswith("md5:") and len(checksum) == 36 for checksum in source.checksums.values())
    assert images.SOURCES is SOURCES
