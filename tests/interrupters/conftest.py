"""Stores of a test's own, certificates for servers that speak TLS, and databases for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cancelable_core import OperationStore
from tests.django_project import configure
from tests.mariadb import MariaDB, running_mariadb
from tests.postgres import PostgreSQL, running_postgres

from .servers import Certificates

configure()


@pytest.fixture
def store() -> OperationStore:
    return OperationStore()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issued(tmp_path_factory.mktemp("certificates") / "authority.pem")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with running_mariadb() as started:
        yield started


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    with running_postgres() as started:
        yield started
