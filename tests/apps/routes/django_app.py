"""Django with Django REST framework, a language prefix, old regular expressions, and a Flask application in a view."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import include, path, re_path
from flask import Flask

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["localhost", "127.0.0.1", "testserver"],
        APPEND_SLASH=True,
        DATABASES={},
        DEBUG=False,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
        LANGUAGES=[("en", "English"), ("de", "German")],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
        ROOT_URLCONF=__name__,
        SECRET_KEY="not secret",
        USE_TZ=True,
    )
    django.setup()

from django.test import Client
from django.views.decorators.http import require_GET
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ViewSet

flask = Flask(__name__)


@flask.route("/hello/<name>")
def hello(name: str) -> str:
    return name


class Things(ViewSet):
    """A resource of Django REST framework."""

    def list(self, _request: Any) -> Any:
        """Return all."""
        return Response([])

    def retrieve(self, _request: Any, pk: str) -> Any:
        """Return one."""
        return Response(pk)


@require_GET
def only_get(_request: Any) -> Any:
    return HttpResponse("only get")


def view(_request: Any, **_values: Any) -> Any:
    return HttpResponse("view")


def fails(_request: Any) -> Any:
    raise RuntimeError("on purpose")


def moved(_request: Any) -> Any:
    return HttpResponseRedirect("/")


def inside(_request: Any, user: int) -> Any:
    return HttpResponse(Client().get(f"/users/{user}/").content)


def mounted(request: Any, rest: str) -> Any:
    """Let a Flask application answer."""
    started: list[str] = []
    environ = {**request.environ, "PATH_INFO": f"/{rest}"}
    body = b"".join(flask(environ, lambda status, _headers, _error=None: started.append(status)))
    return HttpResponse(body, status=int(started[0].split(maxsplit=1)[0]))


router = DefaultRouter()
router.register("things", Things, basename="thing")
urlpatterns = [
    path("", view),
    path("users/<int:user>/", view),
    path("fails/", fails),
    path("moved/", moved),
    path("only-get/", only_get),
    path("inside/<int:user>/", inside),
    path("flask/<path:rest>", mounted),
    re_path(r"^old/(?P<year>\d{4})$", view),
    path("shop/", include([path("<slug:shop>/", include([path("items/<uuid:item>", view)]))])),
    path("api/", include(router.urls)),
    *i18n_patterns(path("about/", view)),
]
app = get_wsgi_application()
asgi = get_asgi_application()

REQUESTS = {
    "GET /": (200, "/"),
    "GET /users/5/": (200, "/users/<int:user>/"),
    "POST /users/5/": (200, "/users/<int:user>/"),
    "GET /users/5": (301, ""),
    "GET /users/x/": (404, ""),
    "GET /fails/": (500, "/fails/"),
    "GET /moved/": (302, "/moved/"),
    "POST /only-get/": (405, "/only-get/"),
    "OPTIONS /only-get/": (405, "/only-get/"),
    "GET /inside/5/": (200, "/inside/<int:user>/"),
    "GET /old/2024": (200, r"^old/(?P<year>\d{4})$"),
    "GET /shop/a/items/8b0b5a44-7a5f-4b57-9f2e-0c7c2b9b1f10": (200, "/shop/<slug:shop>/items/<uuid:item>"),
    "GET /api/things/": (200, "/api/things/$"),
    "GET /api/things/7/": (200, "/api/things/(?P<pk>[^/.]+)/$"),
    "OPTIONS /api/things/7/": (200, "/api/things/(?P<pk>[^/.]+)/$"),
    "DELETE /api/things/7/": (405, "/api/things/(?P<pk>[^/.]+)/$"),
    "GET /de/about/": (200, "/de/about/"),
    "GET /none/": (404, ""),
}
MOUNTED = {"GET /flask/hello/you": (200, "/hello/<name>"), "GET /flask/none": (404, "")}
ASGI_REQUESTS = {line: answer for line, answer in REQUESTS.items() if "inside" not in line and "fails" not in line}
