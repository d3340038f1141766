"""The routes: ``path("jobs/", include("cancelable_django.urls"))``. `reverse` knows ``cancelable:cancel`` and so on."""

from __future__ import annotations

from django.urls import path, re_path

from .views import endpoint

__all__ = ["app_name", "urlpatterns"]

app_name = "cancelable"

urlpatterns = [
    path("", endpoint, name="operations"),
    path("stats", endpoint, {"action": "stats"}, name="stats"),
    path("cancel-all", endpoint, {"action": "cancel-all"}, name="cancel-all"),
    path("<str:operation_id>", endpoint, name="operation"),
    path("<str:operation_id>/cancel", endpoint, {"action": "cancel"}, name="cancel"),
    re_path(r"^(?P<path>(?s:.*))\Z", endpoint),  # whatever else there may be is unknown in our own words
]
