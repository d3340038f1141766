"""One driver per adapter, behind one `AdapterClient`."""

from .base import AdapterClient, Answer, Exchange, normalised
from .frameworks import ADAPTERS, FlaskClient

__all__ = ["ADAPTERS", "AdapterClient", "Answer", "Exchange", "FlaskClient", "normalised"]
