import json

import pytest

from histcxr.exceptions import InputError
from histcxr.features.histograms import ZONES, zone_names
from histcxr.features.recipe import Recipe, as_recipe


@pytest.mark.parametrize("zones", ZONES)
def test_recipe_survives_json(zones):
    recipe = Recipe(zones)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.names == zone_names(zones)


def test_spellings_are_one():
    assert Recipe("6") == Recipe(6) == as_recipe(6)
    assert hash(Recipe("6")) == hash(Recipe(6))
    assert as_recipe(Recipe(2)) == Recipe(2)
    with pytest.raises(AttributeError):
        Recipe().zones = 2


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="zones must be one of"):
        Recipe(4)
    with pytest.raises(InputError, match="must have the keys"):
        Recipe.from_dict({**Recipe().to_dict(), "colour": 3})
    with pytest.raises(InputError, match="must have the keys"):
        Recipe.from_dict({"zones": 1})


@pytest.mark.parametrize("key", ["histogram", "extraction"])
def test_counts_of_another_version_are_refused(key):
    own = Recipe().to_dict()[key]
    with pytest.raises(InputError, match=f"a recipe's {key} version must be this program's, {own}; got 99"):
        Recipe.from_dict({**Recipe().to_dict(), key: 99})
