"""Recipes read back what they say, and mistakes in them get one line."""

import pytest

from slimfleet.compression import BadInput
from slimfleet.compression.model.listing import listing
from slimfleet.compression.model.recipes.recipe import recipe_of


@pytest.mark.parametrize(
    "text",
    [
        "prune",
        "prune: share=0.6, epochs=10.0",
        'prune: of="parameters"; sparsify: share=0.9; quantise: weights=4, mixed=true, learning_rate=0.001',
        "distil: soft_labels=.5; prune; distil",
    ],
)
def test_a_recipe_is_what_its_text_says(text):
    recipe = recipe_of(text)
    assert recipe_of(str(recipe)) == recipe
    assert [step.technique for step in recipe.steps] == [
        part.split(":")[0].strip() for part in text.split(";")
    ]


def test_keys_are_settings_of_the_technique_or_of_its_training():
    (step,) = recipe_of("quantise: weights=3, epochs=2, batch_size=16").steps
    assert (step.settings.weights, step.settings.tuning.epochs, step.settings.tuning.batch_size) == (
        3,
        2.0,
        16,
    )
    assert str(step) == "quantise: weights=3, epochs=2.0, batch_size=16"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("prun", "did you mean 'prune'"),
        ("melt", "known are prune, "),
        ("prune: share=2", "share = 2: must be less than 1"),
        ("prune: shar=.2", "did you mean 'share'"),
        ("prune: share=.2, epocs=3", "'epocs'"),
        ("prune: share", "must be key=value"),
        ("quantise: weights=4.5", "valid integer"),
        ("quantise; prune", "prune changes layers and comes after quantise"),
    ],
)
def test_a_mistake_gets_one_line(text, problem):
    with pytest.raises(BadInput, match="recipe") as refusal:
        recipe_of(text)
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_listing_has_the_range_of_every_setting():
    ranges = {(each["name"], row["name"]): row["range"] for each in listing() for row in each["settings"]}
    assert ranges["round", "bits"] == "float > 0 <= 32, or none"
    assert ranges["prune", "soft_labels"] == "float >= 0 <= 1"
    assert ranges["search", "flops"] == "float | str, or none"
    assert ranges["sparsify", "pattern"] == "any | 2:4 | 4:8 | 1:4"
    assert not [place for place, text in ranges.items() if text in ("", "Optional", "Union")]
