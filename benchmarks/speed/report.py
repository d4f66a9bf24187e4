"""How large the page of many runs is, and how soon it opens.

The runs are made up, in the form that Monitor(preset="standard") writes; Chromium is the one on PATH or that CHROMIUM names.

    python benchmarks/speed/report.py            # 100 runs of 50 evaluations
    python benchmarks/speed/report.py 20 500
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lazyrich import Evaluation
from lazyrich.report import write_report
from lazyrich.results.series import SeriesFolder

FEATURES, OUTPUTS = 512, 10
OTHERS = ("balanced", "output_alignment", "nc1", "nc2_equinorm", "nc2_equiangular", "nc3", "s_init", "rankme", "stable_rank",
          "effective_rank", "participation_ratio", "alpha_req", "target_alignment", "parameter_norm", "loss")  # fmt: skip


def made_up(folder: Path, evaluations: int, seed: int) -> None:
    """One run: a power law that bends into a cliff."""
    rng = np.random.default_rng(seed)
    series = SeriesFolder(folder)
    k = np.arange(1, FEATURES + 1)
    for place, step in enumerate(np.unique(np.geomspace(1, 100_000, evaluations).round().astype(int))):
        spectrum = k ** -(0.5 + rng.random()) * np.where(k > OUTPUTS, 0.1 ** (3 * place / evaluations), 1)
        held = np.cumsum(rng.random(FEATURES) * np.where(k > OUTPUTS, 0.01, 1))
        value = float(rng.random())
        values = {"low_rank": value, "low_rank_corrected": value - 0.01, "low_rank_stderr": 0.01, "isotropic": 0.86}
        values |= {"output_rank": float(OUTPUTS), **{name: float(rng.random()) for name in OTHERS}}
        curves = {"relative_eigenvalues": spectrum / spectrum[0], "quality": held / held[-1], "utilization": held / held[-1]}
        curves["contributions"] = np.diff(curves["utilization"], prepend=0) * (1 - value)
        series.add(Evaluation(int(step), values, curves))


def seconds_to_open(page: Path) -> tuple[float, float]:
    """Until the page has loaded, and until its first panel is drawn."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto("about:blank")
        began = time.perf_counter()
        tab.goto(page.as_uri())
        loaded = time.perf_counter() - began
        tab.wait_for_selector(".main-svg")
        drawn = time.perf_counter() - began
        browser.close()
    return loaded, drawn


def main() -> None:
    runs, evaluations = map(int, sys.argv[1:] or (100, 50))
    with TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(runs):
            made_up(folder / f"run {seed}", evaluations, seed)
        began = time.perf_counter()
        page = write_report(folder)
        written = time.perf_counter() - began
        print(f"{runs} runs of {evaluations} evaluations: written in {written:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
        for _ in range(3):
            loaded, drawn = seconds_to_open(page)
            print(f"loaded after {loaded:.2f} s, first panel drawn after {drawn:.2f} s")


if __name__ == "__main__":
    main()
