"""Which rows of a stream are retained, from sizes and hashes in plain Python."""

import pytest
import torch
from reference import splitmix

from lazyrich.gram.retained_rows import RowSample, _mixed, content_keys, number_keys, uniforms

CPU = torch.device("cpu")


def rows(numbers, sizes=None):
    """Rows whose content follows from their numbers; their sizes too, unless they are passed."""
    numbers = torch.tensor(list(numbers), dtype=torch.int64)
    x = numbers.double().unsqueeze(1)
    sizes = 1.0 + numbers % 5 if sizes is None else torch.as_tensor(sizes)
    sizes = sizes.double()
    u = torch.tensor([(splitmix(n) + 1) / 2**64 for n in numbers.tolist()], dtype=torch.float64)
    small = torch.cat([x, 10 * x], dim=1)
    zero = torch.zeros((), dtype=torch.float64)
    return RowSample(100 * x.float(), small, x[:, 0] + 1, numbers % 3, numbers, sizes, sizes / u, zero)


def sample(capacity):
    free = rows(range(capacity))
    for x in vars(free).values():
        x.zero_()
    return free


def numbers_of(retained):
    return [round(x) for x in retained.small[:, 0].tolist()]


def by_priority(numbers):
    return sorted(numbers, key=lambda n: -(1 + n % 5) / ((splitmix(n) + 1) / 2**64))


def priority(n):
    return (1 + n % 5) / ((splitmix(n) + 1) / 2**64)


@pytest.fixture(params=["slots", "shapes"])
def offered(request, monkeypatch):
    """Both ways to copy rows: by the slots that change, and by shapes that do not depend on values, as on an accelerator."""
    if request.param == "shapes":

        def replace(self, rows, stays, restored):
            priorities = torch.cat([self.priorities, rows.priorities])
            self._gather(rows, priorities.topk(min(len(self.sizes), len(priorities))).indices, restored)

        monkeypatch.setattr(RowSample, "_replace", replace)


def test_the_hash_is_splitmix64():
    """The first three are published with the generator, for the seed 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    numbers = [*range(100), 10**9, 2**40]
    hashes = [x % 2**64 for x in _mixed(torch.tensor(numbers) + 1).tolist()]
    assert hashes[:3] == published
    assert hashes == [splitmix(n) for n in numbers]


def drawn(*blocks, seen=0):
    return uniforms(content_keys(*blocks, seen=seen))


class TestUniforms:
    x = torch.randn(5000, 40, generator=torch.Generator().manual_seed(0))

    def test_they_are_uniform(self):
        u = drawn(self.x, self.x[:, :3].double())
        assert bool(((u > 0) & (u <= 1)).all())
        tenths = torch.histc(u, bins=10, min=0, max=1)
        assert float(((tenths - 500).square() / 500).sum()) < 28  # χ² with 9 degrees of freedom, one in a thousand
        assert abs(float(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1])) < 4 / 5000**0.5
        assert abs(float(torch.corrcoef(torch.stack([u, self.x[:, 0].double()]))[0, 1])) < 4 / 5000**0.5

    def test_they_follow_from_the_content_of_the_row_alone(self):
        u, order = drawn(self.x), torch.randperm(5000, generator=torch.Generator().manual_seed(1))
        assert torch.equal(drawn(self.x[order]), u[order])
        assert torch.equal(drawn(self.x[17:18]), u[17:18])
        assert torch.equal(drawn(self.x.double()), u)

    def test_equal_rows_are_distinguished(self):
        x = self.x[:4].repeat_interleave(1250, 0)
        x[-1] = 7.0
        u, later = drawn(x), drawn(x, seen=5000)
        assert len(torch.cat([u, later[:-1]]).unique()) == 9999
        assert u[-1] == later[-1] == drawn(x[-1:])[0]
        order = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
        assert torch.equal(drawn(x[order]).sort().values, u.sort().values)
        assert abs(float(u.mean()) - 0.5) < 4 / (12 * 5000) ** 0.5

    def test_the_last_bits_hardly_matter(self):
        noise = 1 + 3e-7 * torch.randn(self.x.shape, generator=torch.Generator().manual_seed(2))
        assert float((drawn(self.x * noise) == drawn(self.x)).double().mean()) > 0.98

    @pytest.mark.parametrize("scale", [1e-170, 1e-30, 1e30, 1e170])
    def test_any_scale(self, scale):
        assert len(drawn(self.x.double() * scale).unique()) == 5000

    def test_rows_far_from_the_origin_are_distinguished(self):
        assert len(drawn(self.x + 1000).unique()) > 4990

    def test_numbers_give_the_published_hash(self):
        numbers = torch.tensor([1, 2, 7, 2**40])
        expected = [((splitmix(n - 1) >> 11) + 1) / 2**53 for n in numbers.tolist()]
        assert uniforms(number_keys(numbers)).tolist() == expected


@pytest.mark.usefixtures("offered")
class TestSample:
    @pytest.mark.parametrize("capacity", [1, 2, 7, 49, 50, 51])
    @pytest.mark.parametrize("size", [1, 3, 20, 50])
    def test_those_of_the_largest_priority_are_retained(self, capacity, size):
        retained = sample(capacity)
        for start in range(0, 50, size):
            retained.offer(rows(range(start, min(start + size, 50))))
            seen = by_priority(range(min(start + size, 50)))
            assert numbers_of(retained.used(CPU)) == seen[:capacity]
            expected = priority(seen[capacity]) if len(seen) > capacity else 0.0
            assert float(retained.threshold) == pytest.approx(expected)
        used = retained.used(CPU)
        assert retained.count == min(capacity, 50)
        for name, x in vars(rows(numbers_of(used))).items():
            if name != "threshold":
                assert torch.equal(getattr(used, name), x), name

    def test_parts_make_up_the_whole(self):
        parts, together, whole = [sample(7) for _ in range(3)], sample(7), sample(7)
        for rank, part in enumerate(parts):
            part.offer(rows(range(rank, 50, 3)))
            together.offer(part.used(CPU))
        whole.offer(rows(range(50)))
        assert numbers_of(together.used(CPU)) == numbers_of(whole.used(CPU))
        assert together.threshold == whole.threshold

    def test_rows_below_the_threshold_of_the_other_leave(self):
        """One saw many rows and turned most away; of the other's few rows only those stay that it too would have retained."""
        many, few = sample(5), sample(5)
        many.offer(rows(range(1000)))
        few.offer(rows(range(1000, 1003)))
        few.offer(many.used(CPU))
        expected = by_priority(range(1003))
        assert float(few.threshold) >= priority(expected[5]) * (1 - 1e-12)
        assert numbers_of(few.used(CPU)) == [n for n in expected[:5] if priority(n) > float(few.threshold)]

    def test_features_are_restored(self):
        retained = sample(3)
        retained.offer(rows(range(9)), lambda x: x + 1)
        used = retained.used(CPU)
        assert torch.equal(used.features, 100 * used.small[:, :1].float() + 1)

    def test_no_slots_and_no_rows(self):
        retained = sample(0)
        retained.offer(rows(range(5)))
        assert retained.count == 0
        retained = sample(3)
        retained.offer(rows([]))
        assert retained.count == 0
        retained.offer(rows(range(5)))
        retained.offer(rows([]))
        assert retained.count == 3
        retained.clear()
        assert (retained.count, float(retained.threshold)) == (0, 0.0)

    def test_a_copy_of_the_used_rows_shares_no_memory(self):
        retained = sample(3)
        retained.offer(rows(range(2)))
        copied, before = retained.used(CPU), retained.used(CPU)
        for x in vars(retained).values():
            x += 1
        assert all(torch.equal(getattr(copied, name), x) for name, x in vars(before).items())


def test_sums_over_all_rows_are_estimated_without_bias():
    """Rows of sizes 1 to 5 and ten of 1,000, which must be there: a total over 2,000 rows from 100, for 400 choices."""
    sizes = 1.0 + torch.arange(2000) % 5
    sizes[:10] = 1000.0
    values = torch.randn(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64).square() * sizes
    totals, counts, offer = [], [], rows(range(2000), sizes)
    for draw in range(400):
        retained = sample(100)
        u = torch.rand(2000, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
        offer.priorities = offer.sizes / u
        retained.offer(offer)
        used = retained.used(CPU)
        probability = used.inclusion()
        assert set(range(10)) <= set(numbers_of(used))
        totals.append(float((values[numbers_of(used)] / probability).sum()))
        counts.append(float((1 / used.first(40).inclusion()).sum()))
    totals, counts = torch.tensor(totals), torch.tensor(counts)
    assert abs(float(totals.mean() / values.sum()) - 1) < 4 * float(totals.std() / values.sum()) / 20
    assert float(totals.std() / values.sum()) < 0.1
    assert abs(float(counts.mean()) - 2000) < 4 * float(counts.std()) / 20  # the first 40 are such a sample too
