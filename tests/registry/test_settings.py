from __future__ import annotations

from pathlib import Path

import pytest

from longshore.settings import read_settings


def test_the_environment_names_registry_and_identity() -> None:
    settings = read_settings({"LONGSHORE_REGISTRY": "s3://b/p", "LONGSHORE_IDENTITY": "ci", "XDG_CACHE_HOME": "/c"})
    assert (settings.registry, settings.identity, settings.cache) == ("s3://b/p", "ci", Path("/c/longshore"))


def test_without_it_a_folder_of_the_users_own_is_the_registry() -> None:
    assert read_settings({"XDG_DATA_HOME": "/d"}).registry == "file:///d/longshore/registry"
    assert read_settings({}).registry == (Path.home() / ".local/share/longshore/registry").as_uri()


def test_a_uid_without_a_name_is_still_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", fail)
    assert read_settings({}).identity.startswith("uid-")
