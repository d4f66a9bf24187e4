"""Inputs on which the first version read a network wrongly, or disturbed it: what each must give."""

import collections

import pytest
import reference
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import lazyrich
from lazyrich import DataError, HeadError

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")
SINGLE = 2.0**-23


@torch.no_grad()
def by_hand(features, outputs, **options):
    return reference.d_lr(features.double().numpy(), outputs.double().numpy(), eps=SINGLE, **options)


class Cosine(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.W = nn.Parameter(torch.randn(classes, width))

    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.W))


class TestAHeadThatIsABareParameter:  # 1
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.W = nn.Linear(8, 32), nn.Parameter(torch.randn(5, 32))

        def forward(self, x):
            h = nn.functional.normalize(torch.relu(self.fc(x)))
            return nn.functional.linear(h, nn.functional.normalize(self.W))

    def test_no_module_is_the_head(self):
        torch.manual_seed(0)
        with pytest.raises(HeadError, match="head='fc'"):
            lazyrich.measure(self.Net(), torch.randn(400, 8))

    def test_as_a_module_that_is_named(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), Cosine(5, 32))
        r = lazyrich.measure(net, torch.randn(400, 8), head="2")
        assert (r.num_features, r.num_outputs, round(r.low_rank, 3)) == (32, 5, 0.551)


class TestOutputsChangedAfterTheHead:  # 2
    class Net(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.f, self.h, self.d = nn.Linear(8, 32), nn.Linear(32, classes), nn.Parameter(torch.randn(8, classes))

        def forward(self, x):
            out = self.h(torch.relu(self.f(x)))
            out += 3 * torch.sin(x @ self.d)
            return out

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.g = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)), nn.Linear(5, 1)

        def forward(self, x, w):
            return self.f(x) * torch.sigmoid(self.g(w))

    @pytest.mark.parametrize("classes", [1, 4])
    def test_in_place(self, classes):
        torch.manual_seed(0)
        with pytest.raises(HeadError, match="head='h'"):
            lazyrich.measure(self.Net(classes), torch.randn(400, 8))

    def test_one_output_times_a_gate(self):
        torch.manual_seed(0)
        with pytest.raises(HeadError, match=r"head='f\.2'"):
            lazyrich.measure(self.Gated(), [((torch.randn(400, 8), torch.randn(400, 5)), None)])


def test_more_than_4096_outputs_from_a_subclass_of_linear():  # 3
    class Cos(nn.Linear):
        def forward(self, x):
            return 16 * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Cos(16, 5000, bias=False)), torch.randn(200, 8) * 5 * torch.rand(200, 1)
    r = lazyrich.measure(net, x)
    assert [round(r.low_rank, 3), round(r.output_alignment, 3)] == [0.521, 0.330]
    assert round(r.output_singular_values[0], 1) == 178.2


class TestRowsAreCountedWhereTheyAreCaptured:  # 4
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.h = nn.GRU(4, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.h(self.g(x)[1][-1])

    def test_time_first(self):
        torch.manual_seed(0)
        net, data = self.Net(), [torch.randn(20, 8, 4) for _ in range(40)]
        with torch.no_grad():
            features = torch.cat([net.g(x)[1][-1] for x in data])
        r = lazyrich.measure(net, data, num_samples=50)
        assert r.num_samples == 50
        assert r.low_rank == pytest.approx(by_hand(features[:50], net.h(features[:50])), rel=1e-5)
        assert round(lazyrich.measure(net, data[:3]).low_rank, 4) == 0.2395
        monitor = lazyrich.Monitor(net, data)
        assert monitor.series.last("low_rank") == pytest.approx(by_hand(features, net.h(features)), rel=1e-5)

    def test_packed_sequences(self):
        torch.manual_seed(0)
        net, packs = self.Net(), [pack_sequence([torch.randn(n, 4) for n in (9, 7, 5)]) for _ in range(40)]
        with torch.no_grad():
            features = torch.cat([net.g(x)[1][-1] for x in packs])[:50]
        monitor = lazyrich.Monitor(net, [(p, None) for p in packs], num_samples=50)
        assert monitor.series.last("low_rank") == pytest.approx(by_hand(features, net.h(features)), rel=1e-5)


class TestNamedInnerLayers:  # 6
    def test_length_is_not_taken_for_channels(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv1d(3, 16, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4))
        x = torch.randn(100, 3, 30)
        layers = lazyrich.measure(net, x, layers=["1", "2"]).layers
        assert [layers[name].num_features for name in ("1", "2")] == [16, 16]
        with torch.no_grad():
            assert layers["1"].low_rank == pytest.approx(by_hand(net[0](x).mean(2), net(x)), rel=1e-5)
            assert layers["2"].low_rank == pytest.approx(by_hand(net[:2](x).mean(2), net(x)), rel=1e-5)

    def test_height_is_not_taken_for_channels(self):
        torchvision = pytest.importorskip("torchvision")
        torch.manual_seed(0)
        net, x = torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [2, 4], [4, 4], num_classes=5), torch.randn(40, 3, 32, 32)
        layer = lazyrich.measure(net, x, layers=["features.1.0"]).layers["features.1.0"]
        assert layer.num_features == 12
        net.eval()
        with torch.no_grad():
            assert layer.low_rank == pytest.approx(by_hand(net.features[0](x).mean((1, 2)), net(x)), rel=1e-5)


class TestChangeInPlaceBetweenTwoLayers:  # 7
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.a, self.b, self.act = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(32, 16), nn.ReLU(inplace=True)
            self.fc = nn.Linear(16, 3)

        def forward(self, x):
            h = self.i(x)
            a = self.a(h)
            h = self.act(h)
            return self.fc(torch.tanh(a + self.b(h)))

    class Inferred(Net):
        pass

    Inferred.forward = torch.inference_mode()(Net.forward)

    def test_forward_under_inference_mode(self):
        torch.manual_seed(0)
        net, x, inferred = self.Net(), torch.randn(300, 8), self.Inferred()
        inferred.load_state_dict(net.state_dict())
        for model in (net, inferred):
            layers = lazyrich.measure(model, x, layers=["a", "b"]).layers
            assert [round(layers[name].low_rank, 3) for name in ("a", "b")] == [0.611, 0.636]


def test_integer_targets_are_judged_once():  # 13
    torch.manual_seed(0)
    net, x, y = (
        nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)),
        torch.randn(8, 4),
        torch.tensor([0, 3, 1, 2, 0, 1, 1, 0]),
    )
    whole = lazyrich.measure(net, [(x, y)])
    halves = lazyrich.measure(net, [(x[:4], y[:4]), (x[4:], y[4:])])
    assert whole.num_samples == halves.num_samples == 8
    assert whole.neural_collapse is halves.neural_collapse is None
    assert whole.comparison.target_alignment == pytest.approx(halves.comparison.target_alignment, rel=1e-6)
    with torch.no_grad():
        assert whole.comparison.target_alignment == pytest.approx(reference.cka(net[:2](x).numpy(), y[:, None].numpy()), rel=1e-5)


def test_sparse_inputs():  # 14
    torch.manual_seed(0)
    x = (torch.rand(300, 50) < 0.1).float()
    net = nn.Sequential(nn.Linear(50, 16), nn.ReLU(), nn.Linear(16, 3))
    sparse, dense = lazyrich.measure(net, [x.to_sparse()]), lazyrich.measure(net, [x])
    assert sparse.num_samples == 300
    assert sparse.low_rank == pytest.approx(dense.low_rank, rel=1e-5)


def test_the_fused_path_does_not_skip_layers():  # 16
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.e, self.fc = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

        def forward(self, x):
            pad = torch.arange(7) >= torch.arange(len(x))[:, None] % 5 + 2
            return self.fc(self.e(x, src_key_padding_mask=pad)[:, 0])

    torch.manual_seed(0)
    net, x = Net(), torch.randn(200, 7, 16)
    fast = lazyrich.measure(net, x, layers="all").layers
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        slow = lazyrich.measure(net, x, layers="all").layers
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert list(fast) == list(slow)
    assert {"e.layers.0.linear1", "e.layers.1.linear2", "fc"} <= set(fast)
    assert [layer.low_rank for layer in fast.values()] == pytest.approx([layer.low_rank for layer in slow.values()], rel=1e-6)


class TestTwoHeadsOneBehindASoftmax:  # 22
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.t, self.cls, self.box = nn.Linear(8, 16), nn.Linear(16, 2), nn.Linear(16, 4)

        def forward(self, x):
            h = torch.relu(self.t(x))
            return self.box(h), torch.softmax(self.cls(h), 1)

    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.t, self.fc, self.temp = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(8, 1)

        def forward(self, x):
            return self.fc(torch.relu(self.t(x))) * torch.sigmoid(self.temp(x))

    def test_both_are_listed(self):
        torch.manual_seed(0)
        with pytest.raises(HeadError) as error:
            lazyrich.measure(self.Two(), torch.randn(500, 8))
        assert "head='cls'" in str(error.value)
        assert "head='box'" in str(error.value)

    def test_the_head_is_among_the_candidates(self):
        torch.manual_seed(0)
        with pytest.raises(HeadError, match="head='fc'"):
            lazyrich.measure(self.Tempered(), torch.randn(500, 8))


def test_a_layer_narrower_than_the_output_rank():  # 23
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 10))
    r = lazyrich.measure(net, torch.randn(1000, 20), layers="all")
    assert [r.layers[name].isotropic is None for name in ("0", "2", "4")] == [False, True, False]
    assert "fewer features than output directions" in " ".join(r.notes)
    assert "-0.0000" not in r.table()
    assert not any(-1e-9 < layer.isotropic < 0 for layer in r.layers.values() if layer.isotropic is not None)


@pytest.mark.filterwarnings("ignore")  # Transformers' own
class TestTransformers:
    @pytest.fixture(autouse=True)
    def transformers(self):
        torch.manual_seed(0)
        return pytest.importorskip("transformers")

    @pytest.fixture
    def t5(self, transformers):
        def make(vocabulary, width):
            sizes = {"d_model": width, "d_kv": 8, "d_ff": 2 * width, "num_layers": 1, "num_heads": width // 8}
            config = transformers.T5Config(vocab_size=vocabulary, decoder_start_token_id=0, pad_token_id=0, **sizes)
            return transformers.T5ForConditionalGeneration(config)

        return make

    def test_mask_of_the_encoder(self, t5):  # 5
        ids, mask = torch.randint(2, 60, (12, 10)), torch.ones(12, 10, dtype=torch.long)
        mask[:, 3:] = 0
        labels = torch.randint(2, 60, (12, 10))
        labels[:, 8:] = -100
        r = lazyrich.measure(t5(60, 16), {"input_ids": ids, "attention_mask": mask, "labels": labels})
        assert r.num_samples == 12 * 8

    def test_mask_of_the_decoder_and_padded_labels(self, t5):  # 20
        ids, mask, labels = torch.randint(2, 50, (64, 12)), torch.ones(64, 12, dtype=torch.long), torch.randint(2, 50, (64, 12))
        mask[:, 6:] = 0
        decoder = torch.ones_like(ids)
        decoder[:, 3:] = 0
        padded = labels.clone()
        padded[:, 3:] = -100
        short = {"input_ids": ids[:, :10], "attention_mask": mask[:, :10]}
        batches = [
            {"input_ids": ids, "attention_mask": mask, "labels": labels},
            {**short, "labels": labels, "decoder_attention_mask": decoder},
            {**short, "labels": padded},
        ]
        model = t5(50, 32)
        assert [lazyrich.measure(model, [batch]).num_samples for batch in batches] == [768, 192, 192]

    def test_labels_of_positions(self, transformers):  # 19
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.BertConfig(vocab_size=50, num_labels=3, **sizes)
        bert = transformers.BertForTokenClassification(config).eval()

        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.m = bert

            def forward(self, x):
                return self.m(x).logits

        ids, labels = torch.randint(2, 50, (64, 12)), torch.randint(3, (64, 12))
        labels[:, ::2] = -100
        mapping = lazyrich.measure(bert, [{"input_ids": ids, "labels": labels}])
        pair = lazyrich.measure(Plain(), (ids, labels))
        assert mapping.num_samples == pair.num_samples == 384
        assert mapping.neural_collapse.nc1 == pytest.approx(pair.neural_collapse.nc1, rel=1e-4)

    def test_mask_that_does_not_fit_the_frames(self, transformers):  # 21
        config = transformers.Wav2Vec2Config(
            vocab_size=12, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(32, 32),
            conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        net, lengths = transformers.Wav2Vec2ForCTC(config).eval(), torch.tensor([400, 300, 250, 120])
        mask = (torch.arange(400) < lengths[:, None]).long()
        batch = {"input_values": torch.randn(4, 400) * mask, "attention_mask": mask}
        frames = net._get_feat_extract_output_lengths(lengths)
        with pytest.raises(DataError, match="rows="):
            lazyrich.measure(net, [batch])
        total = int(net._get_feat_extract_output_lengths(400))
        r = lazyrich.measure(net, [batch], rows=lambda _: torch.arange(total) < frames[:, None])
        assert r.num_samples == int(frames.sum())

    def test_evaluation_sets_in_a_subclass_of_dict(self, transformers, tmp_path):  # 18
        from lazyrich.integrations.transformers import RichnessCallback

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        data = [{"input_ids": torch.randint(1, 40, (6,)), "labels": i % 3} for i in range(32)]

        def series(evaluation):
            torch.manual_seed(0)
            model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=40, num_labels=3, **sizes))
            arguments = transformers.TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True)
            trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=evaluation)
            callback = RichnessCallback(trainer)
            trainer.add_callback(callback)
            trainer.train()
            return callback.monitor.series["low_rank"].tolist()

        assert series(collections.OrderedDict(a=data)) == series({"a": data})

    def test_folders_of_old_key_names(self, transformers, tmp_path):  # 24
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.ViTConfig(image_size=16, patch_size=8, **sizes)
        net, batch = transformers.ViTForImageClassification(config), {"pixel_values": torch.randn(64, 3, 16, 16)}
        net.save_pretrained(tmp_path / "checkpoint-1")
        series = lazyrich.trace(net, tmp_path, [batch])
        assert series.steps.tolist() == [1]
        assert series.last("low_rank") == pytest.approx(lazyrich.measure(net, [batch]).low_rank, rel=1e-5)
