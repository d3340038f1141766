"""Our routes and nothing else: where tests begin."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("jobs/", include("cancelable_django.urls"))]
