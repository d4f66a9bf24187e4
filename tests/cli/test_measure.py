"""``lazyrich measure`` prints and writes what ``lazyrich.measure`` returns."""

import json

import pytest
import torch
from printed import printed
from safetensors.torch import save_file
from torch import nn

import lazyrich
from lazyrich.cli import main


class TestMeasure:
    def test_the_same_as_in_python(self, project, capsys):
        common = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--nc4"]
        assert main([*common, "--out", "found"]) == 0
        shown = capsys.readouterr()
        import userproject

        expected = lazyrich.measure(userproject.build_model(), userproject.build_loader(), nc4=True, null=4)
        assert printed(expected) in shown.out
        assert lazyrich.load(project / "found" / "richness.json").to_dict() == expected.to_dict()
        assert (project / "found" / "richness.png").exists()
        assert main([*common, "--out", "found"]) == 1
        assert main([*common, "--out", "found", "--overwrite"]) == 0

    @pytest.mark.parametrize(
        ("model", "loader", "named"),
        [
            ("build_dropping", "build_loader", "output to differ is that of 1 (Drops)"),
            ("build_model", "build_shuffled", "sampler"),
        ],
    )
    def test_check_names_what_is_not_deterministic(self, project, capsys, model, loader, named):
        common = ["measure", f"userproject:{model}", "--data", f"userproject:{loader}", "--no-progress"]
        assert main(common) == 0
        assert main([*common, "--check"]) == 1
        assert named in capsys.readouterr().err

    def test_check_changes_no_number(self, project, capsys):
        common = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress"]
        assert main(common) == main([*common, "--check"]) == 0
        shown = capsys.readouterr().out
        assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]

    @pytest.mark.parametrize("layers", [["all"], ["0", "2"]])
    def test_layers_start_and_balance(self, project, capsys, layers):
        import userproject

        start = userproject.build_model()
        nn.init.ones_(start[0].weight)
        torch.save(start.state_dict(), project / "start.pt")
        common = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--class-balanced"]
        assert main([*common, "--start", "start.pt", "--layers", *layers, "--pooling", "first", "--out", "found"]) == 0
        expected = lazyrich.measure(
            userproject.build_model(),
            userproject.build_loader(),
            layers="all" if layers == ["all"] else layers,
            start=start,
            class_balanced=True,
        )
        assert expected.comparison.s_init is not None
        assert printed(expected) in capsys.readouterr().out
        assert lazyrich.load(project / "found" / "richness.json").to_dict() == expected.to_dict()
        assert (project / "found" / "layers.png").exists()

    def test_redraws(self, project, capsys):
        import userproject

        assert (
            main(["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--null", "2"])
            == 0
        )
        expected = lazyrich.measure(userproject.build_model(), userproject.build_loader(), null=2)
        assert expected.laziness is not None
        assert printed(expected) in capsys.readouterr().out

    def test_progress_goes_to_stderr(self, project, capsys):
        assert main(["measure", "userproject:build_model", "--data", "userproject:build_loader"]) == 0
        shown = capsys.readouterr()
        assert "measuring" in shown.err
        assert "measuring" not in shown.out

    @pytest.mark.parametrize("kind", ["pt", "safetensors", "nested", "wrapped"])
    def test_checkpoints(self, project, capsys, kind):
        import userproject

        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        state = model.state_dict()
        path = project / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
        if kind == "safetensors":
            save_file(state, path)
        elif kind == "nested":
            torch.save({"epoch": 3, "state_dict": state}, path)
        elif kind == "wrapped":
            torch.save({f"module._orig_mod.{name}": value for name, value in state.items()}, path)
        else:
            torch.save(state, path)
        arguments = ["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress"]
        assert main([*arguments, "--checkpoint", str(path)]) == 0
        assert printed(lazyrich.measure(model, userproject.build_loader(), null=4)) in capsys.readouterr().out

    def test_results_are_plain_json(self, project):
        main(["measure", "userproject:build_model", "--data", "userproject:build_loader", "--no-progress", "--out", "found"])
        values = json.loads((project / "found" / "richness.json").read_text())
        assert values["schema"] == "lazyrich.richness"
        assert values["num_samples"] == 200
