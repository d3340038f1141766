"""``manage.py seed``: the table of characters and three users."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from exports.models import Character

PASSWORD = "export"
USERS = {"alice": False, "bob": False, "admin": True}


class Command(BaseCommand):
    """Fill the table from Python's own Unicode database, and make the demo users. Repeating it changes nothing more."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        """One option, for tests and quick looks."""
        parser.add_argument("--rows", type=int, default=None, metavar="N", help="only the first N characters")

    def handle(self, *args: Any, rows: int | None, **options: Any) -> None:
        """Fill what is missing."""
        with transaction.atomic():
            Character.objects.bulk_create(_characters(rows), batch_size=2_000, ignore_conflicts=True)
            for name, is_staff in USERS.items():
                user, _ = get_user_model().objects.get_or_create(username=name, defaults={"is_staff": is_staff})
                if not user.check_password(PASSWORD):
                    user.set_password(PASSWORD)
                    user.save()
        self.stdout.write(f"{Character.objects.count():,} characters (Unicode {unicodedata.unidata_version}).")
        self.stdout.write(f"Users: {', '.join(USERS)} (staff: admin).")
        self.stdout.write(
            self.style.WARNING(f"They all have the demo password {PASSWORD!r}, set by this command and nowhere else.")
        )


def _characters(limit: int | None) -> Iterator[Character]:
    found = 0
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        name = unicodedata.name(character, "")
        if name:
            yield Character(code_point=code_point, name=name, category=unicodedata.category(character))
            found += 1
            if found == limit:
                return
