"""The pages, and under /jobs/ the routes of cancelable_django."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from exports import views

urlpatterns = [
    path("", views.index, name="index"),
    path("login", LoginView.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("exports", views.start_export, name="start-export"),
    path("exports/stream", views.stream_export, name="stream-export"),
    path("exports/<str:export_id>/file", views.download_export, name="download-export"),
    path("jobs/", include("cancelable_django.urls")),
]
