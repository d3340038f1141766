"""Stores of a test's own, and certificates for servers that speak TLS."""

from __future__ import annotations

import pytest

from cancelable_core import OperationStore

from .servers import Certificates


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issued(tmp_path_factory.mktemp("certificates") / "authority.pem")
