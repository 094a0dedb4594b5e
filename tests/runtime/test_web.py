"""Where HTTP may lead, and to whom credentials go."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime import web
from longshore_runtime.errors import LongshoreError, Refused, StoreFailed
from longshore_runtime.web import Web, check_address, pause_of, proxy_for, redirect
from support.sites import FakeSite, run_site


def explain(name: str, status: int, headers: object) -> LongshoreError:
    return StoreFailed(f"{name}: {status}")


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://hub/a/b", "https://cdn/x?sig=1", "https://cdn/x?sig=1"),
        ("https://hub/a/b", "/c", "https://hub/c"),
        ("https://hub/a/b", "c", "https://hub/a/c"),
        ("https://hub/a", "//cdn/x", "https://cdn/x"),
        ("http://hub/a", "https://hub/a", "https://hub/a"),
        ("http://hub/a", "http://10.1.2.3/x", "http://10.1.2.3/x"),
        ("https://hub/a", "https://[2001:db8::1]/x", "https://[2001:db8::1]/x"),
    ],
)
def test_a_redirect_leads_where_it_says(url: str, location: str, target: str) -> None:
    assert redirect(url, location, loopback=False) == target


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn/x",
        "ftp://cdn/x",
        "file:///etc/passwd",
        "https://user:secret@cdn/x",
        "https://@cdn/x",
        "https://169.254.169.254/latest",
        "https://169.254.0.1/x",
        "https://[fe80::1%25eth0]/x",
        "https://[::ffff:169.254.169.254]/x",
        "https://[fd00:ec2::254]/x",
        "https://127.0.0.1/x",
        "https://127.1.2.3/x",
        "https://[::1]/x",
        "https://0.0.0.0/x",
        "https://[::]/x",
        "https://224.0.0.1/x",
        "https://2130706433/x",
        "https://127.1/x",
        "https://[::1/x",
    ],
)
def test_a_redirect_from_a_public_place_may_not_lead_anywhere(location: str) -> None:
    with pytest.raises(Refused) as caught:
        redirect("https://hub/a?token=secret", location, loopback=False)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_whatever_a_server_answers_is_a_place_or_refused(location: str) -> None:
    try:
        target = redirect("https://hub/a", location, loopback=False)
    except Refused:
        return
    assert target.startswith("https://")


def test_a_name_that_means_a_forbidden_address_is_given_up_before_anything_is_sent(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is resolved when it is connected to, so what it meant before does not count."""
    real, port = socket.getaddrinfo, int(site.endpoint.rpartition(":")[2])

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "cdn.example" else host, *arguments, **options)

    connection = Web("http://203.0.113.1", {}, explain)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Refused, match=r"127\.0\.0\.1 is this machine"), connection.open(f"http://cdn.example:{port}/x", "x"):
        pass
    assert site.asked == []


def test_credentials_go_to_one_origin() -> None:
    with run_site() as first, run_site() as second:
        first.files["x"] = second.files["x"] = b"data"
        connection = Web(first.endpoint, {"Authorization": "secret"}, explain)
        for site in (first, second):
            assert connection.read(f"{site.endpoint}/x", "x")[0] == b"data"
        assert [asked.headers.get("authorization") for asked in (first.asked[0], second.asked[0])] == ["secret", None]


def test_a_document_that_is_too_large_is_refused(site: FakeSite) -> None:
    site.files["x"] = bytes(1000)
    with pytest.raises(Refused, match="x is larger than 999 bytes"):
        Web(site.endpoint, {}, explain).read(f"{site.endpoint}/x", "x", 999)


@pytest.mark.parametrize("address", ["169.254.1.1", "fe80::1", "0.0.0.0", "::", "ff02::1", "fd00:ec2::254", "nonsense"])
def test_no_model_lies_at_such_an_address(address: str) -> None:
    with pytest.raises(Refused):
        check_address(address, loopback=True)


def test_this_machine_is_an_address_only_for_itself() -> None:
    check_address("127.0.0.1", loopback=True)
    check_address("93.184.216.34", loopback=False)
    with pytest.raises(Refused):
        check_address("::ffff:127.0.0.1", loopback=False)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"RateLimit": '"api";r=0;t=42'}, 42),
        ({"RateLimit": '"api";r=5;t=42'}, 0),
        ({}, 0),
    ],
)
def test_a_server_says_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert pause_of(headers) == seconds


def test_proxies_are_those_of_the_environment(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://hub/x") == ""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", ".internal,hub2")
    assert proxy_for("https://hub/x") == "http://proxy:3128"
    assert proxy_for("https://store.internal/x") == proxy_for("https://hub2/x") == ""
    monkeypatch.setenv("HTTP_PROXY", site.endpoint.replace("http://", "http://user:secret@"))
    site.spoil = lambda asked, reply: web_reply(asked.path)
    found, _ = Web("http://hub.example", {}, explain).read("http://hub.example/x", "x")
    assert found == b"http://hub.example/x", "a proxy is asked for the whole address"
    assert site.asked[0].headers["proxy-authorization"].startswith("Basic ")


def web_reply(path: str) -> Any:
    from support.hubs import Reply

    return Reply(200, path.encode())


def test_a_name_without_an_address_is_not_this_machine() -> None:
    assert not web.Web("http://no-such-host.invalid", {}, explain)._at_home
    assert web.Web("http://localhost", {}, explain)._at_home
