"""Displays as scikit-learn's: they draw what they hold, into the axes that they get, in colours of their own."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import histcxr
from histcxr import plots
from histcxr.exceptions import MissingDependencyError
from histcxr.features.histograms import masked_histogram
from histcxr.reports.image_displays import histogram_band


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    sick = rng.random(200) < 0.5
    return sick, np.clip(rng.beta(2, 4, 200) + 0.3 * sick, 0, 1)


def test_plots_are_public():
    assert "plots" in dir(histcxr)
    assert histcxr.plots is plots
    for spelling in (
        "from histcxr.plots import RocDisplay",
        "import histcxr.plots; histcxr.plots.RocDisplay",
    ):
        code = f"import sys; {spelling}; assert 'matplotlib' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(plots, name) for name in plots.__all__)


@pytest.mark.parametrize("name", ["RocDisplay", "ScoreDisplay", "CalibrationDisplay", "DecisionCurveDisplay"])
def test_displays_draw_into_the_axes_they_get(name, case, ax):
    display = getattr(plots, name).from_predictions(*case, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    again = Figure().subplots()
    assert display.plot(again).ax_ is again


def test_a_display_makes_its_own_figure(case):
    from matplotlib import pyplot

    display = plots.RocDisplay.from_predictions(*case)
    assert display.ax_ in display.figure_.axes
    pyplot.close(display.figure_)


def test_calls_are_counted_as_drawn(case, ax):
    sick, scores = case
    plots.ConfusionDisplay.from_predictions(sick, scores > 0.5, names=("normal", "sick"), ax=ax)
    shown = [text.get_text().split("\n")[0] for text in ax.texts]
    wanted = [(~sick & (scores <= 0.5)).sum(), (~sick & (scores > 0.5)).sum()]
    assert shown[:2] == [str(one) for one in wanted]
    curve = plots.PredictiveValueDisplay.from_predictions(
        sick, scores > 0.5, kind="ppv", ax=Figure().subplots()
    )
    assert curve.figures["here"] == pytest.approx(sick.mean())


def test_histograms_have_the_mean_of_the_densities(phantoms, ax):
    several = phantoms.several(12)
    counts = np.stack([masked_histogram(one.image, one.mask, 1)[0] for one in several])
    labels = ["Sick" if number % 2 else "Normal" for number in range(12)]
    display = plots.HistogramDisplay.from_counts(counts, labels, ax=ax)
    assert [line.get_label() for line in ax.lines] == ["Normal", "Sick"]
    normal = counts[::2].reshape(6, 64, 4).sum(axis=2)
    density = 100 * (normal / normal.sum(axis=1, keepdims=True)).mean(axis=0) / 4
    assert display.histograms["Normal"]["mean"] == pytest.approx(density, abs=1e-5)
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert histogram_band(np.zeros((2, 256), np.int64))["mean"] == [0.0] * 64


def test_lungs_and_maps_are_drawn_over_the_image(phantoms, ax):
    phantom = phantoms(1)
    display = plots.LungsDisplay.from_mask(phantom.image, phantom.mask, name="$a$", ax=ax)
    assert len(ax.collections) == 6
    assert display.zones.max() == 6
    cam = np.linspace(0, 1, phantom.image.size).reshape(phantom.image.shape)
    seen = Figure().subplots()
    plots.GradCamDisplay(phantom.image, cam, "Sick", 0.25, "chest.png").plot(seen)
    assert seen.get_title(loc="left") == "chest.png\nfor Sick, score 0.250"
    assert len(seen.figure.axes) == 2  # with the colour key


def test_without_matplotlib_the_message_says_what_to_install(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[report\]'"):
        plots.RocDisplay.from_predictions(*case)
