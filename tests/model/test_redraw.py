"""Re-initialised networks against new ones, bit by bit."""

import pytest
import torch
from torch import nn

from lazyrich.model.redraw import redrawn

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")


class OfManyKinds(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.convolution, self.norm = nn.Linear(5, 7), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.recurrent, self.cell, self.embedding = nn.LSTM(4, 6, 2), nn.GRUCell(3, 4), nn.Embedding(9, 4, padding_idx=2)
        self.attention, self.last = nn.MultiheadAttention(8, 2), nn.Linear(4, 3)


NETWORKS = {
    "many kinds": OfManyKinds,
    "a stack of copied layers": lambda: nn.Sequential(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 3), nn.Linear(8, 3)
    ),
    "a decoder": lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2),
    "a transformer": lambda: nn.Transformer(8, 2, 2, 2, 16),
    "one layer twice": lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2, nn.Linear(4, 2)),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_is_a_new_network_of_the_same_random_state(build):
    torch.manual_seed(0)
    model = build()
    torch.manual_seed(1)
    new = build().state_dict()
    torch.manual_seed(1)
    with torch.no_grad():
        found = redrawn(model).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in new.items())
    assert any(not torch.equal(value, model.state_dict()[name]) for name, value in new.items())


def test_tied_weights_need_build():
    """An embedding starts with standard deviation 1, a linear layer of width 64 with 1/√(3·64); nothing says which it was."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(50, 64), nn.Linear(64, 50, bias=False)
            self.head.weight = self.embedding.weight

    with pytest.raises(ValueError, match="embedding.weight and head.weight are one parameter, .* pass build="):
        redrawn(Tied())
