"""A Django project that exports a large table, and lets whoever started an export cancel it."""
