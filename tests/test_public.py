"""The public names: all of them importable, none of them heavy before it is used."""

import subprocess
import sys

import pytest

import cfgnet


def test_every_public_name_is_there():
    assert all(getattr(cfgnet, name) is not None for name in cfgnet.__all__)
    assert {"load", "loads", "train", "Net", "grad_check", "Spec", "SpecError", "Layer", "Case"} <= set(cfgnet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cfgnet.nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, cfgnet; sys.exit(bool({'numpy', 'pydantic', 'yaml', 'click'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
