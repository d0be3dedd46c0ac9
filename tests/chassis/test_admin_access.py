"""Who may change a service by its admin face."""

from __future__ import annotations

from typing import Any, cast

import pytest
from multidict import CIMultiDict

from services.chassis.admin_access import AdminAccess, is_loopback
from services.chassis.config import ConfigError
from services.chassis.errors import Forbidden, ServiceError, Unauthorized
from services.load_balancer.config import load_config

TOKEN = "correct-horse-battery"


class Request:
    def __init__(self, remote: str | None, **headers: str) -> None:
        self.remote = remote
        self.headers = CIMultiDict({name.replace("_", "-"): each for name, each in headers.items()})


def refused(access: AdminAccess, request: Request) -> ServiceError | None:
    try:
        access.check(cast(Any, request))
    except ServiceError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("given", "invalid"),
    [
        (None, False),
        ("", False),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        ("Bearer", True),
        ("Bearer correct-horse-batter", True),
        (f"Bearer {TOKEN}x", True),
        ("Bearer \udcff", True),
    ],
)
def test_with_a_token_a_change_needs_it_from_anywhere(given: str | None, invalid: bool) -> None:
    """RFC 6750, 3.1: no authentication, no error code; a wrong token is `invalid_token`. Both are
    401, loopback or not."""
    headers = {} if given is None else {"Authorization": given}
    for remote in ("127.0.0.1", "10.0.0.7"):
        error = refused(AdminAccess(TOKEN, "X_ADMIN_TOKEN"), Request(remote, **headers))

        assert isinstance(error, Unauthorized)
        assert error.definite
        assert ("invalid_token" in error.headers()["WWW-Authenticate"]) is invalid


def test_the_right_token_is_taken_from_anywhere() -> None:
    """The scheme's case does not matter (RFC 9110, 11.1)."""
    for scheme in ("Bearer", "bearer"):
        request = Request("10.0.0.7", Authorization=f"{scheme} {TOKEN}")
        assert refused(AdminAccess(TOKEN, "X_ADMIN_TOKEN"), request) is None


@pytest.mark.parametrize(
    ("remote", "forwarded", "allowed"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("::ffff:127.0.0.1", None, True),
        ("10.0.0.7", None, False),
        (None, None, False),
        # Through a balancer's own data path; what the client wrote stands before what we add.
        ("127.0.0.1", "10.0.0.7", False),
        ("127.0.0.1", "127.0.0.1, 10.0.0.7", False),
        ("127.0.0.1", "10.0.0.7, 127.0.0.1", False),  # through two of them
        ("127.0.0.1", "127.0.0.1, ::1", True),
        ("127.0.0.1", "rubbish", False),
        # Nobody elsewhere can say that it is here.
        ("10.0.0.7", "127.0.0.1", False),
    ],
)
def test_without_a_token_changes_are_taken_from_loopback_alone(
    remote: str | None, forwarded: str | None, allowed: bool
) -> None:
    """Wherever the request came by, the client is whom the last proxy saw."""
    headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
    error = refused(AdminAccess("", "X_ADMIN_TOKEN"), Request(remote, **headers))

    if allowed:
        assert error is None
    else:
        assert isinstance(error, Forbidden)
        assert "X_ADMIN_TOKEN" in error.detail


def test_what_is_no_address_is_not_loopback() -> None:
    """A name, a socket's path, nothing."""
    assert not any(map(is_loopback, ("", "localhost", "127.0.0.1.evil.example", "/run/socket")))


def test_a_bad_token_is_told_without_showing_it() -> None:
    """A configuration error ends up in logs; a secret must not."""
    environ = {"LOAD_BALANCER_NODE": "lb", "LOAD_BALANCER_LISTEN": "127.0.0.1:0",
               "LOAD_BALANCER_BACKENDS": "b=127.0.0.1:1"}  # fmt: skip
    with pytest.raises(ConfigError) as told:
        load_config({**environ, "LOAD_BALANCER_ADMIN_TOKEN": "hunter2"})
    assert "LOAD_BALANCER_ADMIN_TOKEN" in str(told.value)
    assert "hunter2" not in str(told.value)
    assert TOKEN not in repr(load_config({**environ, "LOAD_BALANCER_ADMIN_TOKEN": TOKEN}))
