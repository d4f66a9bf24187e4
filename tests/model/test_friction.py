"""What stood in the way of ordinary calls, though nothing was wrong."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lazyrich
from lazyrich import DataError

pytestmark = pytest.mark.filterwarnings("ignore::lazyrich.RankWarning")


class TestFriction:
    """What stood in the way, though nothing was wrong."""

    @pytest.fixture(autouse=True)
    def network(self):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))

    def pair(self):
        return torch.randn(60, 6), torch.arange(60) % 3

    def test_a_batch_as_a_list_is_a_pair(self):
        x, y = self.pair()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 60)
        assert lazyrich.measure(self.net, next(iter(loader))).to_dict() == lazyrich.measure(self.net, (x, y)).to_dict()

    def test_two_tensors_of_inputs_are_two_batches(self):
        x, _ = self.pair()
        assert lazyrich.measure(self.net, [x[:30], x[30:]]).num_samples == 60

    def test_samples_with_ignored_labels(self):
        x, y = self.pair()
        y = y.masked_fill(torch.arange(60) % 4 == 0, -100)
        r = lazyrich.measure(self.net, (x, y))
        assert (r.num_samples, r.neural_collapse is not None) == (45, True)

    def test_label_255_names_the_argument(self):
        x, y = self.pair()
        y[3] = 255
        with pytest.raises(DataError, match="255.*ignore_index"):
            lazyrich.measure(self.net, (x, y))
        assert lazyrich.measure(self.net, (x, y), ignore_index=255).num_samples == 59

    def test_keys_that_the_model_does_not_take(self):
        x, y = self.pair()
        with pytest.raises(DataError, match=r"'image'.*forward="):
            lazyrich.measure(self.net, [{"image": x, "label": y}])

    def test_graphs_in_a_monitor(self):
        x, y = self.pair()
        graph = SimpleNamespace(x=x, y=y, to=lambda *_, **__: graph)

        class Net(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net

            def forward(self, graph):
                return self.net(graph.x)

        monitor = lazyrich.Monitor(Net(self.net), [graph])
        assert monitor.series.last("low_rank") == pytest.approx(lazyrich.measure(self.net, x).low_rank, rel=1e-6)

    def test_a_batch_of_no_known_kind_is_offered_the_way_out(self):
        with pytest.raises((DataError, TypeError), match="forward="):
            lazyrich.measure(self.net, [3.5])

    def test_multiple_choice(self):
        class Choice(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.head = nn.Linear(6, 12), nn.Linear(12, 1)

            def forward(self, x, labels=None):
                return {"logits": self.head(torch.tanh(self.fc(x.flatten(0, 1)))).view(len(x), -1)}

        torch.manual_seed(0)
        r = lazyrich.measure(Choice(), [{"x": torch.randn(20, 4, 6), "labels": torch.arange(20) % 4}])
        assert (r.num_samples, r.num_outputs) == (80, 1)

    def test_a_series_knows_what_it_holds(self):
        monitor = lazyrich.Monitor(self.net, self.pair(), every=1)
        monitor.step()
        series = monitor.series
        assert "low_rank" in series
        assert "nothing of the kind" not in series

    def test_every_name_is_listed_once(self):
        assert len(dir(lazyrich)) == len(set(dir(lazyrich)))
