"""Features and outputs are those that the head sees: each value is held against features computed by hand."""

import copy
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lazyrich import DataError, DegenerateError, HeadError, NonFiniteError, measure
from lazyrich.functional import low_rank_measure
from lazyrich.model.linear import linear_parameters

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


def seeded(build):
    torch.manual_seed(0)
    return build()


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Body(nn.Module):
    """Any body and head, with a choice of what happens around them."""

    def __init__(self, body, head, finish=lambda output, features: output):
        super().__init__()
        self.body, self.head, self.finish = body, head, finish

    def forward(self, x):
        features = self.body(x)
        return self.finish(self.head(features), features)


def small_body():
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(inplace=True), nn.Linear(24, 12), nn.Tanh())


def by_hand(features, outputs):
    return low_rank_measure(features.detach(), outputs.detach()).item()


@torch.no_grad()
def check(model, data, features, outputs, **options):
    result = measure(model, data, **options)
    assert result.low_rank == pytest.approx(by_hand(features, outputs), abs=1e-7)
    assert result.num_samples == len(features)
    assert (result.num_features, result.num_outputs) == (features.shape[1], outputs.shape[1])
    return result


@dataclass
class Answer:
    logits: torch.Tensor
    extra: int = 3


class TestHeads:
    x = inputs(300, 6)

    @pytest.mark.parametrize(
        "finish",
        [
            lambda f, _: f,
            lambda f, phi: (f, phi),
            lambda f, phi: {"hidden": phi, "logits": f},
            lambda f, _: Answer(f),
            lambda f, _: f.softmax(1),
            lambda f, _: f.relu_(),
            lambda f, _: [f.clamp_(-0.01, 0.01)],
            lambda f, phi: (f, phi.zero_())[0],
        ],
        ids=["tensor", "tuple", "dict", "dataclass", "softmax", "in-place relu", "in-place clamp", "features overwritten"],
    )
    def test_mlp_whatever_it_returns(self, finish):
        """Peers' mistake 4: what comes after the head may overwrite its output or its input."""
        model = seeded(lambda: Body(small_body(), nn.Linear(12, 3), finish))
        with torch.no_grad():
            features = model.body(self.x)
            outputs = model.head(features)
        assert check(model, self.x, features, outputs).head == "head"

    def test_the_model_may_be_its_own_head(self):
        model = seeded(lambda: nn.Linear(6, 3))
        assert check(model, self.x, self.x, model(self.x)).head == "(the model itself)"

    def test_head_by_name_and_by_module(self):
        model = seeded(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 2)))
        features = model[:2](self.x)
        for head in ("2", model[2]):
            check(model, self.x, features, model[2](features), head=head)

    def test_a_layer_built_but_not_run_is_no_head(self):
        model = seeded(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5)))
        model.append(nn.Identity())
        model[3].spare = nn.Linear(5, 5)
        assert check(model, self.x, model[:2](self.x), model[:3](self.x)).head == "2"

    def test_two_heads_are_ambiguous(self):
        class Two(nn.Module):
            def __init__(self, together):
                super().__init__()
                self.body, self.left, self.right, self.together = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 3), together

            def forward(self, x):
                x = self.body(x).relu()
                both = self.left(x), self.right(x)
                return torch.cat(both, 1) if self.together else both

        for together in (False, True):
            model = seeded(lambda together=together: Two(together))
            with pytest.raises(HeadError, match="(more than one|something other).*head='(left|right)' .*head='(left|right)'"):
                measure(model, self.x)
            features = model.body(self.x).relu()
            check(model, self.x, features, model.left(features), head="left")

    def test_an_adapter_beside_the_head_is_no_head(self):
        """The layer that runs last is the adapter's; its input is not the features."""

        class Adapted(nn.Module):
            def __init__(self):
                super().__init__()
                self.base, self.down, self.up = nn.Linear(6, 3), nn.Linear(6, 2), nn.Linear(2, 3)

            def forward(self, x):
                return self.base(x) + self.up(self.down(x))

        model = seeded(lambda: Body(nn.Linear(6, 6), Adapted()))
        with pytest.raises(HeadError, match="returns something other .*'head.up'.*head='head.base'"):
            measure(model, self.x)
        features = model.body(self.x)
        check(model, self.x, features, model.head(features), head="head")

    def test_the_returned_layer_is_the_head_even_if_another_runs_later(self):
        class Late(nn.Module):
            def __init__(self):
                super().__init__()
                self.head, self.helper = nn.Linear(6, 3), nn.Linear(6, 4)

            def forward(self, x):
                output = self.head(x)
                self.loss = self.helper(x).sum()
                return output

        model = seeded(Late)
        assert check(model, self.x, self.x, model.head(self.x)).head == "head"

    def test_shared_and_tied(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.Embedding(50, 8)
                self.mix = nn.Linear(8, 8)
                self.head = nn.Linear(8, 50, bias=False)
                self.head.weight = self.embedding.weight
                self.alias = self.head

            def forward(self, tokens):
                return self.head(self.mix(self.embedding(tokens).mean(1)).tanh())

        model = seeded(Shared)
        tokens = torch.randint(50, (200, 5), generator=torch.Generator().manual_seed(1))
        features = model.mix(model.embedding(tokens).mean(1)).tanh()
        check(model, tokens, features, model.head(features))
        assert model.head.weight is model.embedding.weight

    def test_lstm(self):
        class Reader(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.head = nn.LSTM(4, 10, batch_first=True), nn.Linear(10, 3)

            def forward(self, x):
                return self.head(self.lstm(x)[0][:, -1])

        model, x = seeded(Reader), inputs(100, 7, 4)
        features = model.lstm(x)[0][:, -1]
        check(model, x, features, model.head(features))


class TestConvolutions:
    x = inputs(90, 3, 8, 8)

    def body(self):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 10, 3), nn.ReLU(inplace=True)
        )

    def test_cnn_with_linear_head(self):
        model = seeded(lambda: nn.Sequential(self.body(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4))).eval()
        check(model, self.x, model[:3](self.x), model(self.x))

    def test_one_by_one_head_on_one_place(self):
        model = seeded(lambda: nn.Sequential(self.body(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(10, 4, 1), nn.Flatten())).eval()
        check(model, self.x, model[:2](self.x).flatten(1), model(self.x))

    def test_one_by_one_head_then_pooling(self):
        model = seeded(lambda: nn.Sequential(self.body(), nn.Conv2d(10, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())).eval()
        check(model, self.x, model[0](self.x).mean((2, 3)), model(self.x))

    def test_a_map_of_answers_takes_places_as_samples(self):
        model = seeded(lambda: nn.Sequential(self.body(), nn.Conv2d(10, 4, 1))).eval()
        features = model[0](self.x).movedim(1, -1).reshape(-1, 10)
        labels = torch.randint(4, (90, 4, 4), generator=torch.Generator().manual_seed(3))
        result = check(model, (self.x, labels), features, model(self.x).movedim(1, -1).reshape(-1, 4))
        assert result.low_rank_corrected is None
        assert result.neural_collapse is not None
        assert "positions of one input are not independent" in result.table()
        ignored = labels.masked_fill(labels == 3, -100)
        kept = (ignored != -100).flatten()
        outputs = model(self.x).movedim(1, -1).reshape(-1, 4)
        check(model, (self.x, ignored), features[kept], outputs[kept])


class TestTransformers:
    tokens = torch.randint(5, 60, (40, 9), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(9) < torch.randint(3, 10, (40, 1), generator=torch.Generator().manual_seed(3))).long()

    def data(self, **more):
        tokens = self.tokens.masked_fill(self.mask == 0, 0)
        whole = {"input_ids": tokens, "attention_mask": self.mask, **more}
        return [{name: value[k : k + 16] for name, value in whole.items()} for k in range(0, 40, 16)], whole

    def test_bert_classifier(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
        )
        model = seeded(lambda: transformers.BertForSequenceClassification(config)).eval()
        labels = torch.arange(40) % 3
        data, whole = self.data(labels=labels)
        with torch.no_grad():
            features = model.bert(whole["input_ids"], attention_mask=self.mask).pooler_output
            result = check(model.train(), data, features, model.classifier(features))
        assert result.head == "classifier"
        assert result.neural_collapse is not None

    def test_gpt2_classifier_takes_the_token_that_the_model_takes(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=0)
        model = seeded(lambda: transformers.GPT2ForSequenceClassification(config)).eval()
        data, whole = self.data()
        with torch.no_grad():
            hidden = model.transformer(whole["input_ids"], attention_mask=self.mask).last_hidden_state
            features = hidden[torch.arange(40), self.mask.sum(1) - 1]
            result = check(model, data, features, model.score(features))
        assert result.head == "score"
        assert result.low_rank_corrected is not None

    @pytest.mark.parametrize("layers", [1, 2])
    def test_what_is_kept_for_the_next_call_is_no_answer(self, layers):
        """Keys and values as tuples of views, as transformers once returned them; the logits are new."""

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.joint, self.head = nn.ModuleList(nn.Linear(4, 12) for _ in range(layers)), nn.Linear(4, 3)

            def forward(self, x):
                kept = []
                for joint in self.joint:
                    query, key, value = joint(x).split(4, dim=-1)
                    kept.append((key.view(len(x), 2, 2), value.view(len(x), 2, 2)))
                    x = x + (query * key).tanh() * value
                self.seen = x
                return {"logits": self.head(x)[torch.arange(len(x))], "past_key_values": tuple(kept)}

        model = seeded(Model)
        with torch.no_grad():
            model(inputs(40, 4))
            result = check(model, inputs(40, 4), model.seen, model.head(model.seen))
        assert result.head == "head"

    def test_gpt2_language_model_takes_tokens_and_drops_padding(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2)
        model = seeded(lambda: transformers.GPT2LMHeadModel(config)).eval()
        data, whole = self.data()
        with torch.no_grad():
            hidden = model.transformer(whole["input_ids"], attention_mask=self.mask).last_hidden_state
            features = hidden[self.mask > 0]
            result = check(model, data, features, model.lm_head(features))
        assert result.head == "lm_head"
        assert result.low_rank_corrected is None

    def test_conv1d_head(self):
        utils = pytest.importorskip("transformers.pytorch_utils")
        model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), utils.Conv1D(3, 8)))
        x = inputs(120, 6)
        result = check(model, (x, torch.arange(120) % 3), model[:2](x), model(x))
        centred = torch.stack([model[:2](x)[k::3].mean(0) for k in range(3)]) - model[:2](x).mean(0)
        weight = model[2].weight.T
        expected = (weight / weight.norm() - centred / centred.norm()).norm().item()
        assert result.neural_collapse.nc3 == pytest.approx(expected, abs=1e-5)


class TestWrappersAndPrecision:
    x = inputs(300, 6)

    def model(self):
        return seeded(lambda: Body(small_body(), nn.Linear(12, 3)))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch.compile
    @torch.no_grad()
    def test_compiled_before_and_after_its_first_call(self):
        model = self.model()
        compiled = torch.compile(model, backend="eager")
        features = model.body(self.x)
        check(compiled, self.x, features, model.head(features))
        expected = compiled(self.x)
        check(compiled, self.x, features, expected)
        part = Body(torch.compile(model.body, backend="eager"), torch.compile(model.head, backend="eager"))
        part(self.x)
        check(part, self.x, features, expected)
        assert torch.equal(compiled(self.x), expected)

    def test_data_parallel(self):
        model = self.model()
        features = model.body(self.x)
        assert check(nn.DataParallel(model), self.x, features, model.head(features)).head == "head"

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_models_of_other_precision(self, dtype):
        model, x = self.model().to(dtype), self.x.to(dtype)
        check(model, DataLoader(x, batch_size=300), model.body(x), model(x))
        assert next(model.parameters()).dtype == dtype

    def test_autocast(self):
        model = self.model()
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            features = model.body(self.x)
            outputs = model.head(features)
            result = measure(model, [self.x])
            assert torch.is_autocast_enabled("cpu")
        assert outputs.dtype == torch.bfloat16
        assert result.low_rank == pytest.approx(by_hand(features, outputs), abs=1e-7)
        assert result.low_rank == pytest.approx(measure(model, self.x).low_rank, abs=0.01)


class TestBatches:
    x, y = inputs(100, 6), torch.arange(100) % 3

    def expected(self, model):
        features = model[:2](self.x)
        return by_hand(features, model(self.x))

    def model(self):
        return seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))

    @pytest.mark.parametrize(
        "make",
        [
            lambda x, y: x,
            lambda x, y: (x, y),
            lambda x, y: [x[:60], x[60:]],
            lambda x, y: [[x[:60]], [x[60:]]],
            lambda x, y: [(x[:60], y[:60]), [x[60:], y[60:]]],
            lambda x, y: ((a, b) for a, b in zip(x.split(7), y.split(7), strict=True)),
            lambda x, y: DataLoader(TensorDataset(x, y), batch_size=32),
            lambda x, y: DataLoader(TensorDataset(x, y), batch_size=1, shuffle=True),
            lambda x, y: [{"input": x, "labels": y}],
            lambda x, y: {"input": x},
        ],
    )
    def test_kinds(self, make):
        model = self.model()

        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = model

            def forward(self, input, labels=None):
                return self.inner(input)

        result = measure(Named(), make(self.x, self.y))
        assert result.low_rank == pytest.approx(self.expected(model), abs=1e-6)
        assert result.num_samples == 100

    def test_inputs_in_a_tuple(self):
        class Sum(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(6, 3)

            def forward(self, a, b):
                return self.head(a + b)

        model = seeded(Sum)
        check(model, [((self.x, self.x * 2), self.y)], self.x * 3, model.head(self.x * 3))

    def test_packed_sequences(self):
        class Reader(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.head = nn.LSTM(4, 10), nn.Linear(10, 3)

            def forward(self, packed):
                return self.head(self.lstm(packed)[1][0][0])

        model = seeded(Reader)
        packed = nn.utils.rnn.pack_sequence([inputs(k + 1, 4) for k in range(20)], enforce_sorted=False)
        features = model.lstm(packed)[1][0][0]
        check(model, [(packed, torch.arange(20) % 3)], features, model.head(features))

    @pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 1000])
    def test_num_samples(self, count):
        model = self.model()
        data = DataLoader(TensorDataset(self.x, self.y), batch_size=32)
        if count == 1:
            with pytest.raises(DataError, match="at least 2 samples"):
                measure(model, data, num_samples=count)
            return
        part = self.x[:count]
        check(model, data, model[:2](part), model(part), num_samples=count)


class Guarded(nn.Module):
    """A model with everything that could be left changed."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
        self.frozen = nn.Linear(16, 12)
        self.head = nn.Linear(12, 3)
        self.fail_at = None
        self.calls = 0

    def forward(self, x):
        random.random(), np.random.rand(), torch.rand(1)  # as a careless model may
        self.calls += 1
        if self.fail_at == self.calls:
            raise OSError("the model failed")
        return self.head(self.frozen(self.body(x)))


class TestAsItWas:
    @pytest.mark.parametrize("outcome", ["success", "model fails", "features are nan", "dead features"])
    def test_everything_comes_back(self, outcome):
        model = seeded(Guarded).train()
        model.frozen.eval()
        model.frozen.requires_grad_(False)
        seen = []
        model.head.register_forward_hook(lambda *_: seen.append("user"))
        x = inputs(64, 6)
        if outcome == "features are nan":
            x[40] = float("nan")
        if outcome == "dead features":
            x[:] = 1
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(TensorDataset(x), batch_size=16, shuffle=True, generator=generator)
        model.fail_at = 3 if outcome == "model fails" else None
        hooks = {m: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()}
        before = {
            "modes": [m.training for m in model.modules()],
            "grads": [p.requires_grad for p in model.parameters()],
            "weights": copy.deepcopy(model.state_dict()),
            "random": (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), generator.get_state()),
        }
        error = {"model fails": OSError, "features are nan": NonFiniteError, "dead features": DegenerateError}.get(outcome)
        if error is None:
            measure(model, loader, nc4=True)
        else:
            with pytest.raises(error):
                measure(model, loader)
        assert seen
        assert hooks == {m: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()}
        assert before["modes"] == [m.training for m in model.modules()]
        assert before["grads"] == [p.requires_grad for p in model.parameters()]
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in before["weights"].items())
        now = (torch.get_rng_state(), np.random.get_state()[1], random.getstate(), generator.get_state())
        for old, new in zip(before["random"], now, strict=True):
            assert old == new if isinstance(old, tuple) else bool((old == new).all())
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")


class TestBadInput:
    x = inputs(64, 6)

    def model(self):
        return seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))

    def used_up(self):
        data = iter([self.x])
        next(data)
        return data

    @pytest.mark.parametrize(
        ("data", "options", "error", "match"),
        [
            (lambda s: [], {}, DataError, "an empty loader;"),
            (lambda s: s.used_up(), {}, DataError, "an iterator that was used up"),
            (lambda s: [s.x[:1]], {}, DataError, "at least 2 samples .* got 1"),
            (lambda s: torch.ones(64, 6), {}, DegenerateError, "are constant"),
            (lambda s: [s.x, s.x / 0], {}, NonFiniteError, r"features hold NaN or infinity in batch 1 \(row 0"),
            (lambda s: (s.x, torch.zeros(63).long()), {}, DataError, "64 inputs and 63 targets"),
            (
                lambda s: [(s.x, torch.zeros(63).long())],
                {},
                DataError,
                r"targets of this batch have shape \(63,\), its outputs 64",
            ),
            (lambda s: [(s.x, torch.zeros(64, 2, 2))], {}, DataError, r"targets must have shape .* got \(64, 2, 2\)"),
            (lambda s: [(s.x, torch.full((64,), 3))], {}, DataError, "label 3 is out of range.*0 … 2"),
            (lambda s: [(s.x, torch.full((64,), -1))], {}, DataError, "label -1 is out of range"),
            (lambda s: TensorDataset(s.x), {}, TypeError, "wrap it in torch.utils.data.DataLoader"),
            (lambda s: [(s.x, s.x, s.x)], {}, DataError, r"a pair \(inputs, targets\).*got \(Tensor, Tensor, Tensor\)"),
            (lambda s: [3], {}, TypeError, "a batch must be a tensor, a pair, a mapping or an object .* got int"),
            (lambda s: 3, {}, TypeError, "data must be a DataLoader.*got int"),
            (lambda s: "mnist", {}, TypeError, "data must be a DataLoader.*got str"),
            (lambda s: (s.x, s.x, s.x), {}, DataError, r"a tuple is \(inputs, targets\), two tensors; got 3"),
            (lambda s: [(s.x, np.zeros(64))], {}, TypeError, "targets of a batch must be a tensor, got ndarray"),
            (lambda s: s.x, {"num_samples": 10.5}, TypeError, "num_samples must be an integer, got 10.5"),
            (lambda s: s.x, {"sample_weights": [1.0] * 64}, TypeError, "sample_weights must be a tensor, got list"),
            (lambda s: s.x, {"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
            (lambda s: iter([s.x]), {"nc4": True}, DataError, "nc4=True takes a second pass"),
            (lambda s: s.x, {"sample_weights": torch.ones(63)}, DataError, "sample_weights has 63 entries, the data more: 64"),
            (lambda s: s.x, {"sample_weights": torch.ones(65)}, DataError, "sample_weights has 65 entries, the data 64 rows"),
            (
                lambda s: DataLoader(TensorDataset(s.x), shuffle=True),
                {"sample_weights": torch.ones(64)},
                DataError,
                "this DataLoader shuffles",
            ),
            (lambda s: s.x, {"head": "nothing"}, HeadError, "head='nothing' is not a module.*head='0' .*head='2'"),
            (lambda s: s.x, {"head": nn.Linear(8, 3)}, HeadError, "is not a part of Sequential"),
            (lambda s: s.x, {"head": 3}, TypeError, "head must be a module, its dotted name or None, got int"),
            (lambda s: s.x, {"device": "nowhere"}, DataError, "device='nowhere' is not a device"),
        ],
    )
    def test_each_has_its_error_and_leaves_nothing_changed(self, data, options, error, match):
        model = self.model().train()
        random_state = torch.get_rng_state()
        with pytest.raises(error, match=match):
            measure(model, data(self), **options)
        assert all(m.training and not m._forward_hooks for m in model.modules())
        assert torch.equal(torch.get_rng_state(), random_state)

    def test_no_head(self):
        with pytest.raises(HeadError, match="no head found in ReLU. The model has no linear layer"):
            measure(nn.ReLU(), self.x)

    def test_a_head_that_does_not_run(self):
        model = self.model()
        model[1].spare = nn.Linear(2, 2)
        with pytest.raises(HeadError, match="the head '1.spare' did not run"):
            measure(model, self.x, head="1.spare")

    def test_integer_features(self):
        class Count(nn.Module):
            def forward(self, x):
                return (x > 0).long()

        model = nn.Sequential(Count())
        with pytest.raises(TypeError, match="input has dtype torch.int64|output has dtype torch.int64"):
            measure(model, self.x, head="0")

    def test_not_a_module(self):
        with pytest.raises(TypeError, match="model must be a torch.nn.Module, got function"):
            measure(lambda x: x, self.x)

    def test_pooling_that_cannot_be_followed(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(6, 3)

            def forward(self, x):
                return self.head(x).amax(1)

        with pytest.raises(HeadError, match="returns something other than what one of its linear layers computes"):
            measure(seeded(Odd), inputs(20, 5, 6))


class TestParts:
    def test_parameters_of_what_is_no_linear_map(self):
        assert linear_parameters(nn.Tanh()) == (None, None)
        bare = nn.Linear(3, 2)
        del bare.weight
        assert linear_parameters(bare) == (None, None)
        weight, bias = linear_parameters(nn.Linear(3, 2, bias=False))
        assert weight is not None
        assert (weight.shape, bias) == ((2, 3), None)

    def test_samples_that_come_one_by_one_without_a_dimension_of_their_own(self):
        model = seeded(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 2)))
        x = inputs(40, 6)
        check(model, list(x), model[:2](x), model(x))

    def test_a_head_that_is_not_a_map_of_the_last_dimension(self):
        model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (4, 2)), nn.Flatten(), nn.Linear(8, 3)))
        with pytest.raises(HeadError, match=r"the head maps \(20, 4, 2\) to \(20, 8\): it is not a linear map"):
            measure(model, inputs(20, 6), head="2")

    def test_layers_that_are_used_but_not_called(self):
        class Functional(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 3)

            def forward(self, x):
                return nn.functional.linear(x, self.fc.weight, self.fc.bias)

        with pytest.raises(HeadError, match="none of the linear layers of Functional was called.*head='fc'"):
            measure(seeded(Functional), inputs(20, 6))
