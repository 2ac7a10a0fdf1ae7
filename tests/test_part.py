"""Families of parts: their members are found by name, and imported when they are named."""

import compileall
import subprocess
import sys
from pathlib import Path

import pytest

import cfgnet.layers  # noqa: F401  says where the layer types lie
from cfgnet.errors import ContractError
from cfgnet.example import FAMILIES
from cfgnet.part import Part

ROOT = Path(__file__).parents[1]
PACKAGE = {
    "__init__": """
        from cfgnet.part import Home, Part

        class Fruit(Part, family="fruit"):
            pass

        Fruit.home = Home(__name__, __path__, Fruit.spell)
        """,
    "small": """
        from fruits import Fruit

        class Berry(Fruit, abstract=True):
            pass

        class BlueBerry(Berry):
            aliases = (
                "bilberry",
                "huckleberry",
            )

        class Currant(Berry):
            pass
        """,
    "large": """
        from fruits import Fruit

        class Apple(Fruit):
            aliases = ("pome", "berry of a tree")

        class Pear(Fruit):
            aliases = ("pome",)
        """,
}


@pytest.fixture
def fruits(tmp_path, monkeypatch):
    """A package with a family of its own, which nobody has imported yet."""
    folder = tmp_path / "fruits"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / f"{name}.py").write_text(text.replace("\n        ", "\n"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in opened():
        del sys.modules[name]


def opened():
    return {name for name in sys.modules if name.partition(".")[0] == "fruits"}


def family():
    from fruits import Fruit

    return Fruit


@pytest.mark.parametrize("name", ["blue_berry", "bilberry", "huckleberry", "currant"])
def test_a_member_is_imported_when_it_is_named(name, fruits):
    found = family().find(name)
    assert found.type_name == ("currant" if name == "currant" else "blue_berry")
    assert opened() == {"fruits", "fruits.small"}
    assert isinstance(family().model_validate(name), found)


def test_a_name_that_nobody_has_imports_nothing_until_somebody_asks_what_there_is(fruits):
    assert family().find("plum") is None and opened() == {"fruits"}
    assert family().unknown("curant") == ("unknown fruit 'curant'", "did you mean 'currant'?")
    assert [*family().members()] == ["apple", "blue_berry", "currant", "pear"]
    assert family().find("pome").type_name == "apple" and family().find("berry") is None


def test_what_is_defined_elsewhere_under_the_name_of_a_member_is_a_second_one(fruits):
    with pytest.raises(ContractError, match=r"fruit 'currant' is defined twice: in fruits\.small and test_part"):
        type("Currant", (family(),), {"__module__": __name__})
    other = type("Plum", (family(),), {"__module__": __name__, "aliases": ("pear",)})
    assert family().find("plum") is other and family().find("pear").__module__ == "fruits.large"


def test_members_of_which_only_the_compiled_modules_are_there_are_found(fruits):
    compileall.compile_dir(fruits, quiet=2, legacy=True)
    for name in PACKAGE:
        (fruits / f"{name}.py").unlink()
    assert family().find("bilberry").__module__ == "fruits.small"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_member_is_found_in_the_text_of_its_module(family: type[Part]):
    shipped = [member for member in family.members().values() if member.__module__.startswith("cfgnet.")]
    for member in shipped:
        for name in (member.type_name, *member.aliases):
            if family.home.package:
                assert family.home.modules_of(name) == [member.__module__], f"{name} is not read in the text"
            else:  # such a member has to be there as soon as the family is
                assert member.__module__.startswith(family.__module__.removesuffix(".base"))


def test_a_configuration_imports_the_types_that_it_names_and_no_others():
    code = (
        "import sys, cfgnet\n"
        f"cfgnet.load({str(ROOT / 'configs/lenet_digits.yaml')!r})\n"
        "print(*(name for name in sys.modules if name.startswith('cfgnet.')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there = set(said.stdout.split())
    assert {"cfgnet.layers.conv", "cfgnet.data.digits", "cfgnet.solver.descent"} <= there
    assert not {"cfgnet.layers.lstm", "cfgnet.layers.scan", "cfgnet.data.hdf5", "cfgnet.solver.adam"} & there
