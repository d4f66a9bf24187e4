"""The register: it only grows, it says when a run may decide a claim, and its history page is generated from it."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from small_experiment import SMALL

from lazyrich import DataError
from lazyrich.experiments import EXPERIMENTS, Claim
from lazyrich.experiments.bookkeeping import history, write_pages
from lazyrich.experiments.register import (
    REGISTER,
    Judged,
    Register,
    append,
    code_hash,
    read_register,
    setup_hash,
    unregistered,
)
from lazyrich.experiments.table import table_text

ROOT = Path(__file__).parents[2]
LIMIT = 0.5


def learns(s):
    """A rule."""
    return above(s["full"], LIMIT)


def above(run, limit):
    return run > limit


class TestItOnlyGrows:
    def test_every_entry_has_its_seal(self):
        assert len(read_register().claims) > 40

    @pytest.mark.parametrize("change", ["a word", "an entry", "two entries", "a verdict"])
    def test_a_change_breaks_the_seals(self, change, tmp_path):
        header, *entries = REGISTER.read_text().split("\n[[entry]]\n")
        if change == "a word":
            entries[0] = entries[0].replace("smallest", "lowest")
        elif change == "an entry":
            del entries[4]
        elif change == "two entries":
            entries[5], entries[6] = entries[6], entries[5]
        else:
            k = next(k for k, entry in enumerate(entries) if 'verdict = "not shown"' in entry)
            entries[k] = entries[k].replace("not shown", "shown")
        path = tmp_path / "claims.toml"
        path.write_text("\n[[entry]]\n".join([header, *entries]))
        with pytest.raises(DataError, match="does not match its seal"):
            read_register(path)

    @pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a repository")
    def test_every_committed_version_is_its_beginning(self):
        """Of the commits that this clone has; a shallow one has the last."""
        name = REGISTER.relative_to(ROOT).as_posix()
        git = ["git", "-C", str(ROOT)]
        commits = subprocess.run(
            [*git, "log", "--format=%H", "--", name], capture_output=True, text=True, check=True
        ).stdout.split()
        now = REGISTER.read_bytes()
        for commit in commits:
            then = subprocess.run([*git, "show", f"{commit}:{name}"], capture_output=True, check=True).stdout
            assert now.startswith(then), commit

    def test_appending_keeps_what_is_there(self, tmp_path):
        path = tmp_path / "claims.toml"
        shutil.copy(REGISTER, path)
        verdict = Judged(read_register().claims[0].id, "not shown", 1, 5, "abc", "2030-01-01", 'with "quotes"')
        append([verdict], path)
        assert path.read_bytes().startswith(REGISTER.read_bytes())
        assert read_register(path).entries == (*read_register().entries, verdict)
        append([dataclasses.replace(verdict, claim="nobody")], path)
        with pytest.raises(DataError, match="verdict on 'nobody', which is no claim"):
            read_register(path)


class TestStanding:
    """When the table of a run may say *shown*."""

    claim = Claim("it learns", "above", learns, conditions=("full",))
    small = dataclasses.replace(SMALL, claims=(claim,))

    def registered(self, found="0-2", reported="100-101"):
        return Register(tuple(unregistered([self.small], "quick", found, reported, "abc", "2030-01-01", Register(()))))

    def standing(self, register, seeds=(100, 101), small=None, claim=None):
        return register.standing(small or self.small, "quick", claim or self.claim, seeds)

    def test_registered(self):
        assert self.standing(self.registered()) == ""

    def test_other_seeds(self):
        assert self.standing(self.registered(), (0, 1)) == "the registered seeds are 100-101"

    def test_seeds_that_found_the_setup(self):
        assert self.standing(self.registered("99-100")) == "seeds 100-100 were used to find the set-up"
        assert "nobody wrote down" in self.standing(self.registered("unknown"))

    def test_another_setup(self):
        def setups(preset):
            return {name: dataclasses.replace(setup, batch_size=65) for name, setup in SMALL.setups(preset).items()}

        other = dataclasses.replace(self.small, setups=setups)
        assert self.standing(self.registered(), small=other) == "the set-up is not the registered one"

    def test_another_rule(self, monkeypatch):
        register = self.registered()
        monkeypatch.setitem(learns.__globals__, "LIMIT", 0.25)  # a constant that the rule reads
        assert self.standing(register) == "the rule is not the registered one"

    def test_not_registered(self):
        assert self.standing(Register(())) == "the claim is not registered"

    def test_it_is_registered_once(self):
        register = self.registered()
        assert unregistered([self.small], "quick", "0-2", "100-101", "def", "2031-01-01", register) == []
        assert len(unregistered([self.small], "quick", "0-2", "200-201", "def", "2031-01-01", register)) == 1


class TestHashes:
    def test_of_a_setup(self):
        setups = SMALL.setups("quick")
        assert setup_hash(setups) != setup_hash(setups, ["full"])
        measured_more = {name: dataclasses.replace(setup, held_out=True) for name, setup in setups.items()}
        assert setup_hash(measured_more) == setup_hash(setups)
        for change in ({"steps": 121}, {"evaluate": (60,)}, {"measured": 50}, {"trained": "last layer"}):
            assert setup_hash({"full": dataclasses.replace(setups["full"], **change)}) != setup_hash(setups, ["full"])

    def test_every_rule_of_the_experiments_has_one(self):
        for experiment in EXPERIMENTS.values():
            for claim in (*experiment.claims, *experiment.former):
                assert len(code_hash(claim.holds)) == 16

    def test_of_a_rule_without_its_words(self, tmp_path, monkeypatch):
        """Comments, types, docstrings and layout do not count; the code does."""
        monkeypatch.syspath_prepend(tmp_path)
        sources = {
            "rule_a": "def rule(s):\n    return s > 1\n",
            "rule_b": 'def rule(s: int) -> bool:\n    """Words."""\n    return (\n        s > 1  # a comment\n    )\n',
            "rule_c": "def rule(s):\n    return s >= 1\n",
        }
        hashes = []
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            hashes.append(code_hash(__import__(name).rule))
        assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(("preset", "seeds"), [("quick", range(100, 105)), ("paper", range(100, 103))])
def test_rules_and_setups_are_the_registered_ones(preset, seeds):
    """A rule or a set-up that changes is registered again, before its seeds are run."""
    register = read_register()
    for experiment in EXPERIMENTS.values():
        for claim in experiment.claims:
            assert register.standing(experiment, preset, claim, list(seeds)) == "", (experiment.name, claim.text)


def test_the_pages_are_those_of_the_register_and_the_results(tmp_path):
    write_pages(ROOT / "results", tmp_path)
    pages = ROOT / "docs" / "experiments"
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.md")]
    assert len(written) > 20
    for path in written:
        assert (pages / path).read_text() == (tmp_path / path).read_text(), f"{path}: run lazyrich.experiments.bookkeeping pages"
    assert {path.name for path in (pages / "record").iterdir()} == {path.name for path in written if path.parent.name == "record"}


def test_the_history_shows_the_bad_verdicts():
    text = history(read_register())
    assert "**not shown**, 1 of 3 seeds" in text.split("\n## train-size\n")[1].split("\n## ")[0]
    assert "**undecided**, 2 of 3 seeds" in text.split("\n## learning-rate\n")[1].split("\n## ")[0]
    assert "11-13" in text.split("\n## encoded-mnist\n")[1].split("\n## ")[0]


def test_a_table_says_shown_only_for_what_was_registered(tmp_path):
    from lazyrich.experiments import Results
    from lazyrich.experiments.run_folder import Run
    from lazyrich.results.series import Evaluation, Series

    values = {"low_rank": 0.2, "test_accuracy": 0.9}
    runs = {name: [Run(Series([Evaluation(1, values)]), tmp_path, 0.0)] * 2 for name in ("full", "last")}
    claim = Claim("it learns", "above", lambda_free, conditions=("full",))
    small = dataclasses.replace(SMALL, claims=(claim,))
    register = Register(tuple(unregistered([small], "quick", "0-2", "100-101", "abc", "2030-01-01", Register(()))))
    assert "\n      SHOWN  it learns (2 of 2 seeds; rule: above)" in table_text(
        small, "quick", Results(runs, (100, 101)), register
    )
    other = table_text(small, "quick", Results(runs, (0, 1)), register)
    assert "EXPLORATORY  it learns (2 of 2 seeds; because the registered seeds are 100-101; rule: above)" in other


def lambda_free(s):
    """A rule."""
    return s["full"].last("test_accuracy") > 0.5
