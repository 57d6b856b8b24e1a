"""A Flask application, with a Django project mounted at /django."""

from __future__ import annotations

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.apps.routes import django_app, flask_app

app = DispatcherMiddleware(flask_app.app, {"/django": django_app.app})
