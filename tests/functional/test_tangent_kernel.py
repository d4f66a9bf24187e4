import copy

import pytest
import torch
from peak_memory import printed, reads_peak_memory
from torch import nn

from lazyrich import DataError, DegenerateError
from lazyrich.functional import tangent_kernel, tangent_kernel_alignment, tangent_kernel_change
from lazyrich.functional.tangent_kernel import TangentKernelChange, _blocks, _groups, _Jacobian


def explicit(model, inputs):
    """Each output's gradient by a backward pass of its own, stacked and multiplied."""
    model = copy.deepcopy(model).eval()
    parameters = [x for x in model.parameters() if x.requires_grad]
    rows = []
    for x in inputs:
        for value in model(x.unsqueeze(0).clone()).flatten():
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            found = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
            rows.append(torch.cat([g.flatten() for g in found]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


def perceptron():
    return nn.Sequential(nn.Linear(5, 17), nn.Tanh(), nn.Linear(17, 11), nn.ReLU(inplace=True), nn.Linear(11, 3)), (5,)


def convolutional():
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(4, 3)), (2, 5, 5)


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 3)), (4, 8)


def inplace_on_the_inputs():
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)), (5,)


def one_output():
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1), nn.Flatten(0)), (5,)


NETWORKS = [perceptron, convolutional, transformer, inplace_on_the_inputs, one_output]


@pytest.fixture(params=NETWORKS, ids=lambda f: f.__name__)
def network(request):
    torch.manual_seed(0)
    model, shape = request.param()
    model = model.double()
    for x in model.buffers():
        if x.is_floating_point():
            x.uniform_(0.5, 1.5)
    return model, torch.randn(6, *shape, dtype=torch.float64)


class TestAgainstTheExplicitJacobian:
    def test_whole_and_in_blocks(self, network):
        model, inputs = network
        expected = explicit(model, inputs)
        largest = max(x.numel() for x in model.parameters()) * 8
        for max_bytes in (2**30, 40 * largest, 12 * largest, 4 * largest):
            found = tangent_kernel(model, inputs, max_bytes=max_bytes)
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * expected.abs().max().item())

    def test_blocks_of_outputs_differ(self):
        """The block of one pair of outputs is not a copy of another's."""
        torch.manual_seed(0)
        kernel = tangent_kernel(perceptron()[0].double(), torch.randn(4, 5, dtype=torch.float64)).reshape(4, 3, 4, 3)
        blocks = [kernel[:, c, :, d] for c in range(3) for d in range(3)]
        assert all((a - b).abs().max() > 1e-3 for k, a in enumerate(blocks) for b in blocks[:k] if not torch.equal(a, b.T))

    def test_some_parameters(self):
        torch.manual_seed(0)
        model = perceptron()[0].double()
        x = torch.randn(4, 5, dtype=torch.float64)
        head = tangent_kernel(model, x, parameters=["4"])
        rest = tangent_kernel(model, x, parameters=["0", "2"])
        torch.testing.assert_close(head + rest, explicit(model, x), rtol=0, atol=1e-12)
        model[0].requires_grad_(False)
        torch.testing.assert_close(tangent_kernel(model, x), explicit(model, x), rtol=0, atol=1e-12)

    def test_single_precision(self):
        torch.manual_seed(0)
        model = perceptron()[0]
        x = torch.randn(4, 5)
        torch.testing.assert_close(tangent_kernel(model, x), explicit(model.double(), x.double()), rtol=1e-4, atol=1e-5)


class TestParts:
    """What is held at a time, in bytes: the bound that `max_bytes` promises."""

    @pytest.mark.parametrize(("samples", "outputs"), [(1, 1), (7, 3), (12, 1), (5, 10)])
    @pytest.mark.parametrize("held", [1, 2, 4, 9, 30, 1000])
    def test_blocks_are_all_rows_once_and_two_fit_in_half(self, samples, outputs, held):
        row_bytes = 40
        jacobian = _Jacobian(nn.Linear(1, 1), torch.zeros(samples, 1), outputs, 4 * row_bytes * held)
        blocks = _blocks(jacobian, row_bytes)
        seen = [(i, c) for a, b in blocks for i in range(a.start, a.stop) for c in range(b.start, b.stop)]
        assert sorted(seen) == [(i, c) for i in range(samples) for c in range(outputs)]
        sizes = [(a.stop - a.start) * (b.stop - b.start) for a, b in blocks]
        whole = samples * outputs <= 2 * held
        assert sizes == [samples * outputs] if whole else max(sizes) <= held
        assert all(b == slice(0, outputs) for _, b in blocks) or held < outputs  # outputs stay together where they can

    def test_blocks_are_no_smaller_than_they_need_be(self):
        jacobian = _Jacobian(nn.Linear(1, 1), torch.zeros(10, 1), 3, 4 * 8 * 7)
        found = [(a.start, a.stop, b.start, b.stop) for a, b in _blocks(jacobian, 8)]
        assert found == [(0, 2, 0, 3), (2, 4, 0, 3), (4, 6, 0, 3), (6, 8, 0, 3), (8, 10, 0, 3)]
        jacobian = _Jacobian(nn.Linear(1, 1), torch.zeros(2, 1), 3, 4 * 8 * 2)
        found = [(a.start, a.stop, b.start, b.stop) for a, b in _blocks(jacobian, 8)]
        assert found == [(0, 1, 0, 2), (0, 1, 2, 3), (1, 2, 0, 2), (1, 2, 2, 3)]

    def test_groups_fit_twice_and_are_of_one_dtype(self):
        """Five rows: a parameter of n numbers takes 40 n bytes in single precision, and 80 n in double."""
        parameters = {
            "a": torch.zeros(3),
            "b": torch.zeros(2),
            "c": torch.zeros(1),
            "d": torch.zeros(1, dtype=torch.float64),
            "e": torch.zeros(2, 2, dtype=torch.float64),
            "f": torch.zeros(1),
        }
        names = [list(group) for group in _groups(parameters, 5, 200)]
        assert names == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
        names = [list(group) for group in _groups(parameters, 5, 10**6)]
        assert names == [["a", "b", "c"], ["d", "e"], ["f"]]


class TestClosedForms:
    def test_linear_model_with_bias(self):
        x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = torch.kron(x @ x.T + 1, torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(tangent_kernel(nn.Linear(4, 3).double(), x), expected, rtol=0, atol=1e-12)

    def test_two_linear_layers(self):
        """f = V U x: K = (x·x') V Vᵀ + (Ux·Ux') I."""
        model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)).double()
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        u, v = model[0].weight.detach(), model[1].weight.detach()
        expected = torch.kron(x @ x.T, v @ v.T) + torch.kron(x @ u.T @ u @ x.T, torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(tangent_kernel(model, x), expected, rtol=0, atol=1e-12)


class TestChange:
    kernel = torch.randn(12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = kernel @ kernel.T

    def test_none(self):
        change = tangent_kernel_change(self.kernel, self.kernel, num_outputs=3)
        assert (change.alignment_change, change.relative_distance) == (pytest.approx(0, abs=1e-14), 0)

    def test_scale(self):
        change = tangent_kernel_change(self.kernel, 2 * self.kernel, num_outputs=3)
        assert (change.alignment_change, change.relative_distance) == (pytest.approx(0, abs=1e-14), pytest.approx(1))

    def test_against_explicit_centring(self):
        other = self.kernel.flip(0).flip(1)
        h = torch.kron(torch.eye(4, dtype=torch.float64) - 0.25, torch.eye(3, dtype=torch.float64))
        a, b = h @ self.kernel @ h, h @ other @ h
        change = tangent_kernel_change(self.kernel, other, num_outputs=3)
        assert change.alignment_change == pytest.approx(float(1 - (a * b).sum() / (a.norm() * b.norm())), abs=1e-12)
        assert change.relative_distance == pytest.approx(float((other - self.kernel).norm() / self.kernel.norm()))

    def test_alignment_with_targets(self):
        y = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        h = torch.kron(torch.eye(4, dtype=torch.float64) - 0.25, torch.eye(3, dtype=torch.float64))
        target = h @ torch.outer(y.flatten(), y.flatten()) @ h
        centred = h @ self.kernel @ h
        expected = float((centred * target).sum() / (centred.norm() * target.norm()))
        assert tangent_kernel_alignment(self.kernel, y) == pytest.approx(expected, abs=1e-12)

    def test_alignment_does_not_see_scale(self):
        y = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        expected = tangent_kernel_alignment(self.kernel, y)
        assert tangent_kernel_alignment(1e-9 * self.kernel, y) == pytest.approx(expected, rel=1e-12)
        change = tangent_kernel_change(1e-9 * self.kernel, 1e-9 * self.kernel.flip(0).flip(1), num_outputs=3)
        whole = tangent_kernel_change(self.kernel, self.kernel.flip(0).flip(1), num_outputs=3)
        assert change.alignment_change == pytest.approx(whole.alignment_change, abs=1e-12)

    def test_labels_are_one_hot_rows(self):
        labels = torch.tensor([0, 2, 1, 2])
        rows = nn.functional.one_hot(labels, 3).double()
        assert tangent_kernel_alignment(self.kernel, labels) == tangent_kernel_alignment(self.kernel, rows)

    def test_a_larger_output_scale_moves_the_kernel_less(self):
        """Chizat, Oyallon & Bach 2019: output scale α with the loss over α²; to the same fit, the change falls like 1/α."""
        changes = []
        for scale in (5.0, 50.0, 500.0):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1)).double()
            x = torch.randn(8, 4, dtype=torch.float64)
            y = torch.sin(x[:, :1] * 2)
            start = copy.deepcopy(model)
            first = start(x).detach()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.02 / scale**2)
            for _ in range(200):
                optimizer.zero_grad()
                ((scale * (model(x) - first) - y) ** 2).mean().backward()
                optimizer.step()
            kernels = tangent_kernel(start, x), tangent_kernel(model, x)
            changes.append(tangent_kernel_change(*kernels, num_outputs=1).relative_distance)
        assert changes[0] > 5 * changes[1] > 25 * changes[2]
        assert changes[2] < 0.02


class TestTheModelComesBack:
    def test_modes_gradients_and_random_state(self):
        torch.manual_seed(0)
        model, shape = convolutional()
        model.train()
        model[0].eval()
        model(torch.randn(3, *shape)).sum().backward()
        before = {name: (x.clone(), x.grad.clone()) for name, x in model.named_parameters()}
        buffers = {name: x.clone() for name, x in model.named_buffers()}
        modes = [m.training for m in model.modules()]
        inputs = torch.randn(3, *shape)
        kept = inputs.clone()
        wrong = torch.randn(3, 9)
        state = torch.random.get_rng_state()
        tangent_kernel(model, inputs)
        with pytest.raises(RuntimeError):
            tangent_kernel(model, wrong)
        random_state = torch.random.get_rng_state()
        assert torch.equal(state, random_state)
        assert [m.training for m in model.modules()] == modes
        assert all(torch.equal(x, before[n][0]) and torch.equal(x.grad, before[n][1]) for n, x in model.named_parameters())
        assert all(torch.equal(x, buffers[n]) for n, x in model.named_buffers())
        assert torch.equal(inputs, kept)
        assert torch.backends.mha.get_fastpath_enabled()


@reads_peak_memory
def test_memory_stays_within_the_bound():
    """The whole Jacobian would take 600 MB; 150 MB are allowed."""
    program = """
        import torch
        from torch import nn
        from lazyrich.functional import tangent_kernel
        torch.set_num_threads(1)
        model = nn.Sequential(nn.Linear(1000, 1000), nn.Tanh(), nn.Linear(1000, 5))
        x = torch.randn(30, 1000)
        tangent_kernel(model, x[:2], parameters=["2"])
        before = peak()
        tangent_kernel(model, x, max_bytes=150 * 2**20)
        print(peak() - before)
    """
    assert 0 < printed(program) < 150


class TestErrors:
    model = nn.Linear(4, 3)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))

    def test_inputs(self):
        with pytest.raises(TypeError, match="inputs must be a tensor .* got list"):
            tangent_kernel(self.model, [self.x])

    def test_outputs(self):
        class Pair(nn.Linear):
            def forward(self, input):
                return super().forward(input), input

        for model, match in (
            (nn.Sequential(self.model, nn.Unflatten(1, (3, 1))), r"one row per sample, .* got \(2, 3, 1\) for 2 samples"),
            (nn.Sequential(self.model, nn.Flatten(0)), r"got \(6,\) for 2 samples"),
            (Pair(4, 3), "got tuple for 2 samples"),
        ):
            with pytest.raises(DataError, match=match):
                tangent_kernel(model, self.x)

    def test_parameters(self):
        with pytest.raises(DataError, match="no parameters to differentiate by"):
            tangent_kernel(self.model, self.x, parameters=["fc"])

    def test_too_little_memory(self):
        with pytest.raises(ValueError, match="max_bytes=100 is too little: .* 192 bytes"):
            tangent_kernel(self.model, self.x, max_bytes=100)

    def test_kernels(self):
        with pytest.raises(DataError, match="same shape"):
            tangent_kernel_change(torch.eye(4), torch.eye(6), num_outputs=2)
        with pytest.raises(DataError, match="of 3 outputs"):
            tangent_kernel_change(torch.eye(4), torch.eye(4), num_outputs=3)
        with pytest.raises(DegenerateError, match="does not vary"):
            tangent_kernel_change(torch.ones(4, 4), torch.eye(4), num_outputs=1)
        with pytest.raises(DataError, match="another number of entries"):
            tangent_kernel_alignment(torch.eye(4), torch.ones(3))
        with pytest.raises(DegenerateError, match="kernel or targets do not vary"):
            tangent_kernel_alignment(torch.eye(4), torch.ones(4))


def test_reads_as_text():
    change = TangentKernelChange(0.25, 1.5)
    assert str(change) == "tangent kernel: 1 - CKA = 0.2500, relative distance 1.5000"
