"""The table that is exported, and what is remembered of each export."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import models


class Character(models.Model):
    """One named Unicode character."""

    code_point = models.IntegerField(primary_key=True)
    name = models.CharField(max_length=120)
    category = models.CharField(max_length=2)

    def __str__(self) -> str:
        return f"U+{self.code_point:04X} {self.name}"


class Export(models.Model):
    """One export to a file. While it runs, its job, which has the same id, knows more; afterwards this is what is left."""

    id = models.CharField(primary_key=True, max_length=32)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)
    rows_written = models.IntegerField(default=0)
    outcome = models.CharField(max_length=20, blank=True)

    def __str__(self) -> str:
        return f"{self.id} ({self.outcome or 'unfinished'})"

    @property
    def file(self) -> Path:
        """The file, there once it is whole."""
        return Path(settings.MEDIA_ROOT) / f"{self.id}.csv"

    @property
    def unfinished_file(self) -> Path:
        """The file while it is being written."""
        return self.file.with_suffix(".csv.part")
