"""For ASGI servers: ``uvicorn bulk_export.asgi:application``."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bulk_export.settings")
application = get_asgi_application()
