"""Phantoms on disk, networks of no use, and the one that comes with histcxr."""

import numpy as np
import pytest

from histcxr.files.writing import write_image, write_mask
from histcxr.lungs.segmenter import load_segmenter


def random_network(widths, rng):
    """Weights of no use."""
    from histcxr.lungs.unet import weight_shapes

    return {
        name: (0.5 + rng.random(shape)).astype(np.float32)
        if name.endswith("moving_variance")
        else rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in weight_shapes(widths).items()
    }


@pytest.fixture(scope="session")
def phantoms_on_disk(phantoms):
    """A function that writes phantoms and their masks where a manifest finds them, and returns the folder."""

    def write(folder, n):
        for i in range(n):
            phantom = phantoms(i, sick=i % 3 == 0, size=(160, 144))
            write_image(folder / "images" / f"{i:03d}.png", phantom.image)
            write_mask(folder / "masks" / f"{i:03d}.png", phantom.mask)
        return folder

    return write


@pytest.fixture(scope="session")
def random_weights():
    return random_network


@pytest.fixture(scope="session")
def segmenter():
    """The network that comes with histcxr; it finds the lungs of phantoms, too."""
    return load_segmenter()


@pytest.fixture
def rng():
    return np.random.default_rng(5)
