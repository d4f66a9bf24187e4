"""Inner layers: one pass, equal to measuring each alone, in every way of pooling."""

import pytest
import reference
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    ResNetConfig,
)
from transformers import ResNetForImageClassification as ResNet

import lazyrich
from lazyrich import DataError, HeadError, measure
from lazyrich.functional import low_rank_estimate
from lazyrich.measurement import narrow

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def seen(model, names, call):
    """What each module is given, and what the model answers, by hooks of the test's own."""
    found = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda m, a, k, n=name: found.__setitem__(n, (a[0] if a else next(iter(k.values()))).clone()), with_kwargs=True
        )
        for name in names
    ]
    with torch.no_grad():
        answer = call(model.eval())
    for handle in handles:
        handle.remove()
    return found, answer


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    config = ResNetConfig(num_channels=3, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=4)
    return ResNet(config).double(), torch.randn(60, 3, 24, 24, dtype=torch.float64)


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3
    )
    ids = torch.randint(40, (50, 7))
    mask = (torch.arange(7) < torch.randint(2, 8, (50, 1))).long()
    return BertForSequenceClassification(config).double(), ids, mask


class TestResNet:
    def test_all_in_one_pass_is_each_alone(self, resnet):
        model, images = resnet
        calls = []
        handle = model.register_forward_hook(lambda *_: calls.append(1))
        together = measure(model, list(images.split(20)), layers="all")
        handle.remove()
        assert len(calls) <= 3 + 2  # a pass of three batches; the first runs again once the head is found
        names = list(together.layers)
        assert "classifier.1" in names
        assert len(names) == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
        given, answer = seen(model, names, lambda m: m(images))
        for name in names:
            features = given[name].flatten(2).mean(2) if given[name].ndim == 4 else given[name]
            expected = low_rank_estimate(features, answer.logits)
            layer = together.layers[name]
            assert layer.low_rank == pytest.approx(reference.d_lr(features, answer.logits), abs=1e-9)
            assert layer.low_rank_corrected == pytest.approx(expected.corrected, abs=1e-9)
            assert layer.low_rank_stderr == pytest.approx(expected.stderr, abs=1e-9)
            assert layer.balanced == pytest.approx(reference.d_lr(features, answer.logits, power=0.5), abs=1e-9)
            assert layer.isotropic == pytest.approx(expected.isotropic)
            assert layer.participation_ratio == pytest.approx(reference.ranks(features.numpy())["participation_ratio"])
            assert measure(model, list(images.split(20)), layers=[name]).layers[name] == layer

    def test_the_last_layer_is_the_result(self, resnet):
        model, images = resnet
        r = measure(model, images, layers="all")
        last = list(r.layers)[-1]
        assert last == r.head == "classifier.1"
        assert r.layers[last].low_rank == r.low_rank
        assert r.layers[last].low_rank_stderr == r.low_rank_stderr

    @pytest.mark.parametrize("pooling", ["flatten", "positions"])
    def test_other_ways_to_make_rows_of_maps(self, resnet, pooling):
        model, images = resnet
        name = "resnet.encoder.stages.1.layers.0.layer.0.convolution"
        r = measure(model, list(images.split(25)), layers=[name], pooling=pooling)
        given, answer = seen(model, [name], lambda m: m(images))
        x, outputs = given[name], answer.logits
        if pooling == "flatten":
            x = x.flatten(2).transpose(1, 2).flatten(1)
        else:
            places = x.shape[2] * x.shape[3]
            x, outputs = x.flatten(2).transpose(1, 2).flatten(0, 1), outputs.repeat_interleave(places, 0)
        assert r.layers[name].low_rank == pytest.approx(reference.d_lr(x, outputs), abs=1e-9)
        assert r.layers[name].num_rows == len(x)
        assert (r.layers[name].low_rank_stderr is None) == (pooling == "positions")

    def test_table_file_and_picture(self, resnet, tmp_path):
        model, images = resnet
        r = measure(model, images, layers="all")
        table = r.table().rpartition("\n\n")[2].splitlines()
        assert table[0].split()[:3] == ["layer", "features", "D_LR"]
        assert [line.split()[0] for line in table[2 : 2 + len(r.layers)]] == list(r.layers)
        r.save(tmp_path / "r.json")
        assert lazyrich.load(tmp_path / "r.json").layers == r.layers
        r.plot_layers(tmp_path / "layers.png")
        assert (tmp_path / "layers.png").stat().st_size > 10_000


class TestTransformer:
    def test_all_in_one_pass_is_each_alone(self, bert):
        model, ids, mask = bert
        data = [{"input_ids": i, "attention_mask": m} for i, m in zip(ids.split(20), mask.split(20), strict=True)]
        r = measure(model, data, layers="all")
        names = list(r.layers)
        assert names[-1] == r.head == "classifier"
        assert r.layers["classifier"].low_rank == r.low_rank
        given, answer = seen(model, names, lambda m: m(ids, attention_mask=mask))
        share = mask.double() / mask.sum(1, keepdim=True)
        for name in names:
            x = given[name]
            x = torch.einsum("nld,nl->nd", x, share) if x.ndim == 3 else x
            assert r.layers[name].low_rank == pytest.approx(reference.d_lr(x, answer.logits), abs=1e-9), name

    def test_queries_keys_and_values_are_measured_once(self, bert):
        model, ids, _ = bert
        layers = measure(model, [{"input_ids": ids}], layers="all").layers
        query, key = (f"bert.encoder.layer.0.attention.self.{kind}" for kind in ("query", "key"))
        assert layers[query] is layers[key]

    @pytest.mark.parametrize("pooling", ["first", "last", "positions"])
    def test_tokens(self, bert, pooling):
        model, ids, mask = bert
        name = "bert.encoder.layer.1.intermediate.dense"
        r = measure(model, [{"input_ids": ids, "attention_mask": mask}], layers=[name], pooling=pooling)
        given, answer = seen(model, [name], lambda m: m(ids, attention_mask=mask))
        x, outputs = given[name], answer.logits
        if pooling == "first":
            x = x[:, 0]
        elif pooling == "last":
            x = torch.stack([row[m.bool()][-1] for row, m in zip(x, mask, strict=True)])
        else:
            outputs = torch.cat([o.expand(int(m.sum()), -1) for o, m in zip(outputs, mask, strict=True)])
            x = x[mask.bool()]
        assert r.layers[name].low_rank == pytest.approx(reference.d_lr(x, outputs), abs=1e-9)

    @pytest.mark.parametrize("pooling", ["average", "first", "positions"])
    def test_the_head_is_taken_where_the_classifier_reads_it(self, pooling):
        """GPT-2 classifies by its last token, whatever the other layers are pooled by."""
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=8, num_labels=3, pad_token_id=0)
        model = GPT2ForSequenceClassification(config).double()
        r = measure(model, [{"input_ids": torch.randint(1, 30, (40, 8))}], layers="all", pooling=pooling)
        assert list(r.layers)[-1] == r.head == "score"
        assert r.layers["score"].low_rank == r.low_rank

    def test_a_language_model_is_measured_at_its_tokens(self):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=8)).double()
        ids = torch.randint(30, (20, 8))
        mask = (torch.arange(8) < torch.randint(3, 9, (20, 1))).long()
        name = "transformer.h.1.mlp.c_fc"
        r = measure(model, [{"input_ids": ids, "attention_mask": mask}], layers=[name, "lm_head"])
        given, answer = seen(model, [name], lambda m: m(ids, attention_mask=mask))
        keep = mask.bool()
        assert r.layers[name].low_rank == pytest.approx(reference.d_lr(given[name][keep], answer.logits[keep]), abs=1e-9)
        assert r.layers["lm_head"].low_rank == r.low_rank
        assert r.layers[name].low_rank_stderr is None


def test_an_inplace_layer_does_not_overwrite_what_was_taken():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 9), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(9, 5)), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    x = torch.randn(70, 4, dtype=torch.float64)
    with torch.no_grad():
        before, outputs = model[0](x), model(x)
    r = measure(model, x, layers=["1", "1.0"])
    assert r.layers["1"].low_rank == pytest.approx(reference.d_lr(before, outputs), abs=1e-10)
    assert r.layers["1.0"] == r.layers["1"]


class TestWide:
    """Layers too wide to be measured as they are; the limit is lowered here so that a reference is at hand."""

    @pytest.fixture
    def lowered(self, monkeypatch):
        monkeypatch.setattr(narrow, "WIDTH_LIMIT", 300)

    def model(self, p=700):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, p), nn.ReLU(), nn.Linear(p, 8)).double()
        return model, torch.randn(250, 30, dtype=torch.float64), torch.randn(4000, 30, dtype=torch.float64)

    def test_fewer_samples_than_features_is_exact(self, lowered):
        model, few, _ = self.model()
        layer = measure(model, list(few.split(100)), layers=["2"]).layers["2"]
        with torch.no_grad():
            features, outputs = model[:2](few), model(few)
        expected = low_rank_estimate(features, outputs)
        assert layer.reduction == "exact, by the 250 × 250 kernel in place of 700 features"
        assert layer.reduction_stderr is None
        assert layer.num_features == 700
        assert layer.low_rank == pytest.approx(expected.value, abs=1e-9)
        assert layer.low_rank_corrected == pytest.approx(expected.corrected, abs=1e-9)
        assert layer.low_rank_stderr == pytest.approx(expected.stderr, abs=1e-9)

    def test_isotropic_reference_of_the_true_width(self, lowered):
        model, few, _ = self.model()
        assert measure(model, few, layers=["2"]).layers["2"].isotropic == pytest.approx(1 - (8 / 700) ** 0.5, abs=0.01)

    def test_more_samples_are_sketched_and_the_error_is_right(self, lowered):
        model, _, many = self.model()
        many = many[:2000]
        with torch.no_grad():
            features, outputs = model[:2](many), model(many)
        measured = lazyrich.functional.low_rank_measure
        expected = {name: measured(features, outputs, reference=name).item() for name in ("projection", "balanced")}
        ratio = lazyrich.functional.participation_ratio(features)
        layer = measure(model, list(many.split(500)), layers=["2"]).layers["2"]
        assert layer.reduction == "random projection to 2,048 of 700"
        assert 0 < layer.reduction_stderr < 0.02
        assert layer.low_rank == pytest.approx(expected["projection"], abs=4 * layer.reduction_stderr)
        assert layer.balanced == pytest.approx(expected["balanced"], abs=0.02)
        assert layer.participation_ratio == pytest.approx(ratio, rel=0.1)
        assert "700 *" in measure(model, list(many.split(500)), layers=["2"]).table()

    def test_the_sketch_is_unbiased_and_its_error_honest(self):
        """Over many seeds: the mean is the truth, and the claimed error is the seen one."""
        g = torch.Generator().manual_seed(0)
        x = torch.randn(400, 3000, generator=g, dtype=torch.float64)
        outputs = x[:, :6] @ torch.randn(6, 6, generator=g, dtype=torch.float64)
        truth = float(lazyrich.functional.low_rank_measure(x, outputs))
        values, errors = [], []
        for seed in range(25):
            wide = narrow.NarrowGram(lazyrich.Gram(retain=0), hold=False, seed=seed)
            original, narrow.WIDTH_LIMIT = narrow.WIDTH_LIMIT, 100
            wide.update(x, outputs, None, None)
            narrow.WIDTH_LIMIT = original
            value, error = lazyrich.functional.low_rank.sketched_low_rank(wide.finish()[0])
            values.append(value)
            errors.append(error)
        values, errors = torch.tensor(values), torch.tensor(errors)
        assert abs(values.mean() - truth) < 4 * values.std() / 25**0.5
        assert errors.mean() == pytest.approx(values.std().item(), rel=0.35)
        naive = narrow.Sketch(3000)(x)
        assert abs(float(lazyrich.functional.low_rank_measure(naive, outputs)) - truth) > 5 * values.std()  # what is corrected

    def test_inner_products(self):
        x = torch.randn(5, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        products = torch.stack([narrow.Sketch(4000, seed=s)(x) @ narrow.Sketch(4000, seed=s)(x).T for s in range(30)])
        error = (products.mean(0) - x @ x.T) / (products.std(0) / 30**0.5)
        assert error.abs().max() < 4.5


class TestErrors:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.arange(90).reshape(30, 3) % 9

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"layers": ["fc"]}, HeadError, r"layers=\['fc'\] are not modules of Sequential. It has: 0, 1, 2, 3, 4"),
            ({"layers": []}, HeadError, "are not modules"),
            ({"layers": "2"}, TypeError, r"a list of names, got '2'; write layers=\['2'\]"),
            ({"layers": ["0"]}, DataError, "layer '0' is given torch.int64, not floating point"),
            ({"layers": ["2"], "pooling": "max"}, ValueError, "pooling must be one of average, flatten"),
        ],
    )
    def test_bad_arguments(self, options, error, match):
        with pytest.raises(error, match=match):
            measure(self.model, self.x, **options)

    def test_layers_that_did_not_run_or_ran_twice(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.twice, self.never, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

            def forward(self, x):
                return self.head(self.twice(self.twice(x)))

        x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
        for name, match in (("twice", "ran 2 times"), ("never", "was not called")):
            with pytest.raises(DataError, match=match):
                measure(Model(), x, layers=[name])
        r = measure(Model(), x, layers="all")
        assert list(r.layers) == ["head"]
        assert any("'twice' ran 2 times" in note for note in r.notes)

    def test_the_first_tensor_need_not_count_the_samples(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

            def forward(self, scale, x):
                return self.head(torch.tanh(scale.mean() * self.inner(x)))

        x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        assert list(measure(Model(), [{"scale": torch.ones(7), "x": x}], layers="all").layers) == ["inner", "head"]

    def test_sequence_first(self):
        model = nn.Sequential(nn.Linear(4, 5), nn.Flatten(0, 0))
        model = nn.Sequential(
            nn.Unflatten(1, (3, 4)), _Transpose(), nn.Linear(4, 5), _Transpose(), nn.Flatten(), nn.Linear(15, 2)
        )
        x = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
        with pytest.raises(DataError, match=r"is given a tensor of shape \(3, 20, 4\) where the batch has 20 samples"):
            measure(model, x, layers=["2"])
        r = measure(model, x, layers="all")  # of all layers it is left out instead
        assert list(r.layers) == ["5"]
        assert any("layer '2' is given a tensor of shape (3, 20, 4)" in note for note in r.notes)

    def test_other_places_than_the_heads(self):
        model = nn.Sequential(nn.Conv2d(2, 4, 2, stride=2), nn.Tanh(), nn.Conv2d(4, 3, 1))
        x = torch.randn(10, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        with pytest.raises(DataError, match="layer '0' has 64 positions, the head answers at 16"):
            measure(model, x, layers=["0"])

    def test_two_layers_that_see_the_same_in_one_batch_and_not_in_the_next(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

            def forward(self, x):
                return self.head(self.one(x) + self.two(x if len(x) == 20 else x + 1))

        x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        with pytest.raises(DataError, match="layer 'two' was not given the same as layer 'one' in this batch"):
            measure(Model(), list(x.split(20)), layers="all")

    def test_hooks_are_gone_afterwards(self):
        with pytest.raises(DataError):
            measure(self.model, self.x, layers=["0"])
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in self.model.modules())


class _Transpose(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def test_all_layers_of_a_network_that_has_none():
    model = nn.Sequential(nn.Tanh(), nn.Softsign())
    with pytest.raises(HeadError, match='layers="all": Sequential has no linear or convolution layer; .* It has: 0, 1'):
        lazyrich.measure(model, torch.randn(20, 4), layers="all", forward=lambda m, x: lazyrich.Rows(x, m(x)))
