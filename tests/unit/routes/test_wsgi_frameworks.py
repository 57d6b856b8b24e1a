"""Each framework under WSGI: every request is counted under the template of the framework's own table of routes."""

from __future__ import annotations

import functools
import gc
import importlib
import random
from typing import Any

import pytest

from tests.support.routed import RoutedWSGI, module_of

FRAMEWORKS = ["flask", "django", "falcon", "pyramid", "bottle"]
#: A path of each application, and its route.
EXAMPLES = {
    "flask": ("/users/5", "/users/<int:user>"),
    "django": ("/users/5/", "/users/<int:user>/"),
    "falcon": ("/users/5", "/users/{user:int}"),
    "pyramid": ("/users/5", r"/users/{user:\d+}"),
    "bottle": ("/users/5", "/users/<user:int>"),
}
pytestmark = [
    pytest.mark.seam,
    pytest.mark.usefixtures("quiet"),
    # WebOb imports cgi, and Bottle calls a way to mount deprecated that is still in use.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Bottle 0.12 leaves an old finder in sys.meta_path.
    pytest.mark.filterwarnings("ignore:_ImportRedirect:ImportWarning"),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_request_has_the_template_that_matched(framework: str) -> None:
    module = module_of(framework)
    routed = RoutedWSGI(module.app)
    assert routed.warnings == []
    assert {line: routed.ask(*line.split()) for line in module.REQUESTS} == module.REQUESTS


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_a_mounts_own_text_is_in_front_whatever_script_name_says(framework: str) -> None:
    module = module_of(framework)
    routed = RoutedWSGI(getattr(module, "mounted_app", module.app))
    got = {line: routed.ask(*line.split(), SCRIPT_NAME="/from/a/proxy") for line in module.MOUNTED}
    assert got == module.MOUNTED


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_paths_that_a_client_makes_up_add_no_route(framework: str) -> None:
    module = module_of(framework)
    routed = RoutedWSGI(module.app)
    known = {route for _, route in [*module.REQUESTS.values(), *getattr(module, "MOUNTED", {}).values()]}
    dice = random.Random(framework)
    heads = ["", "/users", "/m/s", "/static", "/files", "/foreign", "/shop/a/items", "/%00", "/ä"]
    for _ in range(250):
        routed.ask("GET", f"{dice.choice(heads)}/{dice.randrange(1 << 60):x}")
    assert {route for _, route in routed.counted} <= known | {"/s/<name>"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_requests_leave_nothing_for_the_collector_of_garbage(framework: str) -> None:
    """The hooks add no cycle to what a framework leaves behind by itself."""
    path, route = EXAMPLES[framework]
    module = module_of(framework)
    left = {}
    for has_hooks in (False, True):
        routed = RoutedWSGI(module.app)
        routed.accounting.routes.active = has_hooks
        for _ in range(20):
            routed.ask("GET", path)
        assert routed.counted[-1].route == (route if has_hooks else "")
        gc.collect()
        gc.disable()
        try:
            for _ in range(200):
                routed.ask("GET", path)
            left[has_hooks] = gc.collect()
        finally:
            gc.enable()
    # Where the framework leaves a cycle of its own, what hangs on its environ is collected with it.
    assert left[True] <= left[False] * 1.1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_route_is_known_to_other_processes_while_the_request_runs(framework: str) -> None:
    path, route = EXAMPLES[framework]
    seen: list[str] = []
    RoutedWSGI(module_of(framework).app, look=seen.append).ask("GET", path)
    assert seen == [route]


def test_a_django_request_may_have_a_scope_of_its_own() -> None:
    """A middleware may put there what a token allows; that of an ASGI request is something else."""
    module_of("django")
    handlers: Any = importlib.import_module("django.core.handlers.wsgi")
    request = type("Request", (handlers.WSGIRequest,), {"scope": "read write"})
    handler = type("Handler", (handlers.WSGIHandler,), {"request_class": request})
    assert RoutedWSGI(handler()).ask("GET", "/users/5/") == (200, "/users/<int:user>/")


def test_what_middleware_answers_inside_a_mount_that_has_a_router_has_no_route() -> None:
    dispatcher: Any = importlib.import_module("werkzeug.middleware.dispatcher").DispatcherMiddleware
    bottle: Any = importlib.import_module("bottle")
    django = module_of("django").app
    outer = bottle.Bottle()
    outer.mount("/m/", django)
    for application in (dispatcher(None, {"/m": django}), dispatcher(None, {"/m": dispatcher(django, {})}), outer):
        routed = RoutedWSGI(application)
        assert routed.ask("GET", "/m/users/5/") == (200, "/m/users/<int:user>/")
        assert routed.ask("GET", "/m/users/5/", HTTP_HOST="another.test") == (400, "")


def test_a_foreign_wrapper_between_a_mount_and_its_framework_changes_no_route() -> None:
    """Neither the template in a mount, nor what the framework answers before it routes; that has the mount's template
    where nothing shows a framework in it, until one has routed.
    """
    dispatcher: Any = importlib.import_module("werkzeug.middleware.dispatcher").DispatcherMiddleware
    fix: Any = importlib.import_module("werkzeug.middleware.proxy_fix").ProxyFix
    django = module_of("django").app

    def closed(environ: Any, start_response: Any) -> Any:
        return django(dict(environ), start_response)

    class Noise:
        """Has the application under the name that WhiteNoise gives it."""

        def __init__(self, application: Any) -> None:
            self.application = application

        def __call__(self, environ: Any, start_response: Any) -> Any:
            return self.application(environ, start_response)

    for wrapped in (closed, Noise(django), fix(Noise(django)), functools.partial(django), Noise(django).__call__):
        routed = RoutedWSGI(dispatcher(None, {"/m": wrapped}))
        for _ in range(2):
            assert routed.ask("GET", "/m/users/5/") == (200, "/m/users/<int:user>/")
            assert routed.ask("GET", "/m/users/5/", HTTP_HOST="another.test") == (400, "")
            assert routed.ask("GET", "/m/none/") == (404, "")
    hidden = RoutedWSGI(dispatcher(None, {"/m": _Hidden([django])}))
    assert hidden.ask("GET", "/m/users/5/", HTTP_HOST="another.test") == (400, "/m")
    assert hidden.ask("GET", "/m/users/5/") == (200, "/m/users/<int:user>/")
    assert hidden.ask("GET", "/m/none/") == (404, "")
    assert hidden.ask("GET", "/m/users/5/", HTTP_HOST="another.test") == (400, "")


class _Hidden(tuple[Any]):
    """An application that shows nothing of what is in it, and to which nothing can refer weakly."""

    __slots__ = ()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self[0](environ, start_response)
