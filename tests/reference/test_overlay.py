import cv2
import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.phantoms.studies import make_phantom
from histcxr.reference.overlay import overlay, save_grid


def radiograph(side=64, level=90):
    return np.full((side, side), level, np.uint8)


def test_no_heat_shows_the_radiograph():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = overlay(image, np.zeros((16, 16)))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.repeat(image[..., None], 3, axis=-1))


def test_heat_is_red_where_it_is_highest():
    cam = np.zeros((64, 64), np.float32)
    cam[:32] = 1
    picture = overlay(radiograph(), cam).astype(int)
    assert picture[10, 10, 0] > picture[10, 10, 1]
    assert picture[10, 10, 0] > picture[10, 10, 2]
    assert (picture[50] == 90).all()
    # The radiograph still shows through the highest heat.
    brighter = overlay(radiograph(level=200), cam).astype(int)
    assert (brighter[10, 10] > picture[10, 10]).all()


def test_a_coarse_map_is_stretched_to_the_image():
    cam = np.array([[1, 0], [0, 0]], np.float32)
    picture = overlay(radiograph(299), cam)
    assert picture.shape == (299, 299, 3)
    assert (picture[0, 0] != 90).any()
    assert (picture[-1, -1] == 90).all()


@pytest.mark.parametrize(
    ("image", "cam", "message"),
    [
        (np.zeros((4, 4, 3)), np.zeros((4, 4)), r"image must be finite, of shape \(rows, columns\)"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan), "cam must be finite"),
        (np.zeros((4, 4)), np.full((4, 4), 2.0), "cam must lie between 0 and 1; it goes from 2 to 2"),
    ],
)
def test_wrong_pictures_are_named(image, cam, message):
    with pytest.raises(InputError, match=message):
        overlay(image, cam)


def test_a_grid_has_two_rows_a_class(tmp_path):
    phantoms = [make_phantom(i, sick=i % 2 == 1).image for i in range(5)]
    cams = np.zeros((5, 8, 8), np.float32)
    cams[1] = 1
    labels = ["Normal", "Lung_Opacity", "Normal", "Lung_Opacity", "Normal"]
    save_grid(tmp_path / "maps" / "grid.png", phantoms, cams, labels, columns=2, side=100)
    grid = cv2.imread(str(tmp_path / "maps" / "grid.png"))
    assert grid.shape == (2 * (22 + 2 * 104) + 4, 2 * 104 + 4, 3)
    colourful = (grid.max(axis=2) != grid.min(axis=2)).reshape(-1)
    rows = np.flatnonzero(colourful.reshape(grid.shape[:2]).any(axis=1))
    # Only the first sick radiograph has heat: the last row of the second class, its left half.
    assert rows.min() >= 230 + 22 + 104
    assert not colourful.reshape(grid.shape[:2])[:, 108:].any()
    # Red stays red in the file, in which OpenCV stores blue first.
    assert grid[230 + 22 + 104 + 50, 50, 2] > grid[230 + 22 + 104 + 50, 50, 0]


def test_a_grid_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="as many, and at least one; got 0, 0 and 0"):
        save_grid(tmp_path / "grid.png", [], [], [])
    with pytest.raises(InputError, match="got 1, 1 and 2"):
        save_grid(tmp_path / "grid.png", [radiograph()], [np.zeros((4, 4))], ["a", "b"])
    with pytest.raises(InputError, match="image format"):
        save_grid(tmp_path / "grid.xyz", [radiograph()], [np.zeros((4, 4))], ["a"])
