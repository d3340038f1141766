"""For WSGI servers: ``gunicorn --threads 8 bulk_export.wsgi``."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bulk_export.settings")
application = get_wsgi_application()
