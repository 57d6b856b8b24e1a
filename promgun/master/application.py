"""The Gunicorn application that ``promgun run`` builds: promgun's order of configuration, worker class, arbiter."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import get_default_config_file
from gunicorn.errors import AppImportError, ConfigError

import promgun.config.gunicorn_settings  # noqa: F401 - our settings must exist before a Config is built
from promgun.config.preflight import check_configuration, check_in_use, inherits_sockets
from promgun.config.push_gateway import SECRET_SETTINGS
from promgun.config.run_settings import RunSettings
from promgun.errors import ConfigurationError, PromgunError, UsageError
from promgun.master.application_kind import check_kind
from promgun.master.arbiter import PrometheusArbiter
from promgun.master.context import RunContext
from promgun.master.instrumented_config import InstrumentedConfig
from promgun.master.load_errors import ApplicationRefusedError, failure_of, is_own_exit, refusal_of
from promgun.master.worker_class import choose_worker_class, last_line
from promgun.system.folders import SHARED_MEMORY, temporary_folder
from promgun.system.secrets import mask_passwords


class ArbiterSeam(BaseApplication):  # type: ignore[misc] # gunicorn is untyped
    """Stands between Gunicorn's ``Application`` and ``BaseApplication`` in the MRO. It keeps the ``run`` of the former
    (print-config, check-config, daemon, pythonpath) and replaces that of the latter, which starts the arbiter.
    """

    context: RunContext

    def run(self) -> None:
        """Run our arbiter; raises :class:`ConfigurationError` for a log that cannot be written."""
        try:
            PrometheusArbiter(self, self.context).run()
        except RuntimeError as error:
            # Gunicorn's own texts on log files begin with "Error: " (27.0 ``glogging``).
            raise ConfigurationError(str(error).removeprefix("Error: ")) from error


class PromgunApplication(WSGIApplication, ArbiterSeam):  # type: ignore[misc] # gunicorn is untyped
    """An application configured by: flag > ``PROMGUN_*`` > ``GUNICORN_CMD_ARGS`` > configuration file > default."""

    cfg: Any
    app_uri: str | None

    def __init__(
        self, settings: RunSettings, context: RunContext, environment_at_start: dict[str, str] | None = None
    ) -> None:
        """Load the configuration; raises :class:`ConfigurationError` or another :class:`PromgunError`."""
        self.run_settings = settings
        self.context = context
        self.environment_at_start = environment_at_start
        self.worker_type = ""
        self._given: set[str] = set()
        self._typed_in = os.getcwd()
        super().__init__(prog="promgun run")

    # ---- configuration

    def do_load_config(self) -> None:
        """Load the configuration; unlike Gunicorn's method it raises instead of ending the process."""
        try:
            self.load_default_config()
            self.load_config()
            # Gunicorn 25.3 has no Config.validate
            getattr(self.cfg, "validate", lambda: None)()
        except PromgunError:
            raise
        except (ConfigError, RuntimeError, ValueError, TypeError, AttributeError, ImportError, OSError) as error:
            raise ConfigurationError(str(error)) from error

    def load_default_config(self) -> None:
        """Begin with Gunicorn's defaults; a master executed by SIGUSR2 gets the environment that this one was started
        with.
        """
        self.cfg = InstrumentedConfig(self.usage, prog=self.prog)
        if self.environment_at_start is not None:
            self.cfg.env_orig = dict(self.environment_at_start)

    def load_config(self) -> None:
        """Gather the configuration in order of precedence; a reload (SIGHUP) calls this again."""
        self._given = set()
        overrides = self.run_settings.overrides
        from_environment = self._environment_arguments()
        entered = self._begin(overrides, from_environment)
        location = overrides.get("config") or from_environment.get("config") or get_default_config_file()
        if location:
            self.load_config_from_file(str(location))
        self._apply(from_environment, "GUNICORN_CMD_ARGS")
        self._apply(overrides, "the command line")
        if entered is not None:
            # A relative path counts from where the command was typed: it must not be applied again after the change of
            # folder.
            self.cfg.set("chdir", entered)
        self.chdir()
        if self.app_uri is None:
            self.app_uri = self.cfg.wsgi_app
        if self.app_uri is None:
            raise UsageError(
                "No application was named",
                "Give one, e.g. promgun run app:wsgi for the object wsgi in app.py; try promgun run promgun.demo:app",
            )
        self._choose_worker_class()
        self._load_logger_class()
        self.use_control_socket()
        if self.cfg.worker_tmp_dir is None and temporary_folder() == SHARED_MEMORY:
            # Gunicorn would put its heartbeat files into a folder in which nothing can be written.
            self.cfg.set("worker_tmp_dir", str(SHARED_MEMORY))
        if self.context.is_open:
            self.context.directory.restore_client()

    def use_control_socket(self) -> None:
        """Give the run its own control socket, unless one was named: Gunicorn (since 25.1) uses one path per user."""
        path = self.context.control_socket
        if path and "control_socket" in self.cfg.settings and "control_socket" not in self._given:
            self.cfg.set("control_socket", path)

    def _environment_arguments(self) -> dict[str, Any]:
        words = self.cfg.get_cmd_args_from_env()
        if not words:
            # a parser of all settings takes 10 ms to build
            return {}
        parser: argparse.ArgumentParser = self.cfg.parser()

        def refuse(message: str) -> NoReturn:
            raise ConfigurationError(f"GUNICORN_CMD_ARGS: {message}", "Correct or unset the variable")

        parser.error = refuse  # type: ignore[method-assign] # argparse would end the process
        given = vars(parser.parse_args(words))
        return {name: value for name, value in given.items() if value is not None and name != "args"}

    def _begin(self, overrides: Any, from_environment: dict[str, Any]) -> str | None:
        """Have Gunicorn read the application's name (and Paste's file), then change to the folder that ``chdir`` names.

        Returns that folder, absolute, when a flag or a variable named one.
        """
        app = self.run_settings.app
        paste = overrides.get("paste") or from_environment.get("paste")
        try:
            self.init(None, argparse.Namespace(paste=paste), [app] if app else [])
        except ConfigError as error:
            raise ConfigurationError(str(error)) from error
        chdir = overrides.get("chdir") or from_environment.get("chdir")
        if chdir:
            self._set("chdir", os.path.join(self._typed_in, chdir), "the command line or a variable")
        self.chdir()
        return str(self.cfg.chdir) if chdir else None

    def _apply(self, values: Any, source: str) -> None:
        for name, value in values.items():
            if name != "chdir":
                self._set(name, value, source)

    def _set(self, name: str, value: Any, source: str) -> None:
        try:
            self.cfg.set(name.lower(), value)
        except (ConfigError, ValueError, TypeError, AttributeError, OSError) as error:
            shown = "" if name.lower() in SECRET_SETTINGS else f": {value!r}"
            text = mask_passwords(f"Invalid value for {name} in {source}{shown}: {error}")
            raise ConfigurationError(text) from error
        self._given.add(name.lower())

    def load_config_from_module_name_or_filename(self, location: str) -> Any:
        """Apply a configuration file or ``python:`` module; names that are no settings are ignored, as in Gunicorn."""
        if location.startswith("python:"):
            values = self._module_values(location)
        else:
            values = self.get_config_from_filename(location.removeprefix("file:"))
        for name, value in values.items():
            if name in self.cfg.settings:
                self._set(name, value, location)
        return values

    def _module_values(self, location: str) -> Any:
        name = location.removeprefix("python:")
        try:
            return self.get_config_from_module_name(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):
                raise ConfigurationError(
                    f"Configuration {location} cannot be imported: {error}", "Check the name given with --config"
                ) from error
            raise

    def get_config_from_filename(self, filename: str) -> Any:
        """Execute a configuration file and return its names."""
        from promgun.master.config_file import execute  # noqa: PLC0415 - many servers have no such file

        return super().get_config_from_filename(filename) if filename.endswith(".pyc") else execute(filename)

    def _choose_worker_class(self) -> None:
        """Put the instrumented version in the place of the worker class that was asked for."""
        wanted = self.cfg.settings["worker_class"].get()
        self.cfg.instrumented, self.worker_type = choose_worker_class(wanted, self.cfg.threads)

    def _load_logger_class(self) -> None:
        try:
            self.cfg.logger_class  # noqa: B018 - Gunicorn loads it when it is asked for
        except (RuntimeError, AttributeError, ImportError) as error:
            wanted = self.cfg.settings["logger_class"].get()
            raise ConfigurationError(f"Logger class {wanted!r} cannot be loaded: {last_line(error)}") from error

    def reload(self) -> None:
        """Read the configuration again (SIGHUP); if bad, keep the old one and raise :class:`ConfigurationError`."""
        kept = self.cfg, self.app_uri, self.worker_type
        try:
            super().reload()
            _refuse_what_needs_a_restart(kept[0], self.cfg)
            inherited = inherits_sockets(os.environ, os.getpid())
            check_configuration(self.cfg, inherited=inherited, metrics=not self.context.activated)
            if not inherited:
                check_in_use(self.cfg, held=kept[0].address)
            tls = self.context.check_web(self.cfg)
            self.context.listen_again(self.cfg)
            self.context.tls = tls
        except (PromgunError, SystemExit) as error:
            self.cfg, self.app_uri, self.worker_type = kept
            if isinstance(error, PromgunError):
                raise
            raise ConfigurationError("The configuration file ended the program") from error

    # ---- application

    def search_paths(self) -> list[str]:
        """Return where the application is looked for before ``sys.path``."""
        extra = [os.path.abspath(path) for path in (self.cfg.pythonpath or "").split(",") if path]
        return [self.cfg.chdir, *extra]

    def load(self) -> Any:
        """Import the application, in the worker (or the master with ``--preload``).

        Raises ``AppImportError``, for which Gunicorn prints the text and ends with 4: the user's own traceback when the
        module fails. With ``--reload`` errors pass unchanged: Gunicorn serves them as a page until it is corrected.
        """
        try:
            return self._load(serves_errors=self.cfg.reload)
        except ApplicationRefusedError as refused:
            self._end_unless_first()
            if self.cfg.daemon and not self.cfg.capture_output:
                # Logged too: Gunicorn only prints it, and a daemon has no standard error.
                logging.getLogger("gunicorn.error").error(refused)
            raise

    def check_load(self) -> None:
        """Import the application as a worker would, with the same environment and ``sys.path``.

        Raises :class:`ApplicationRefusedError`.
        """
        os.environ.update(self.cfg.env)
        sys.path[:0] = [path for path in self.search_paths()[:0:-1] if path not in sys.path]
        self._load(serves_errors=False)

    def _load(self, *, serves_errors: bool) -> Any:
        try:
            return check_kind(super().load(), str(self.app_uri), self.worker_type, self.cfg)
        except ApplicationRefusedError:
            raise
        except AppImportError as error:
            raise refusal_of(str(self.app_uri), error) from error
        except Exception as error:
            if serves_errors:
                raise
            raise failure_of(str(self.app_uri), error) from error
        except SystemExit as error:
            # ``sys.exit("no database")`` in the module: Gunicorn would start such workers again and again, for ever.
            if serves_errors or not is_own_exit(error):
                raise
            raise failure_of(str(self.app_uri), error) from error

    def _end_unless_first(self) -> None:
        """End quietly, unless this is the master's first worker to find that the application cannot be loaded."""
        if self.context.directory.is_mine:
            return
        try:
            # a place where a worker can write as any user
            mark = os.path.join(self.context.directory.slots, f".load-failed-{os.getppid()}")
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from None
        except OSError:
            return


def _refuse_what_needs_a_restart(before: Any, now: Any) -> None:
    """Raise :class:`ConfigurationError` for a reload that would change who owns the store, or where it is."""
    for option, name in (("--user", "uid"), ("--group", "gid"), ("--metrics-dir", "metrics_dir")):
        if getattr(before, name) != getattr(now, name):
            raise ConfigurationError(
                f"{option} needs a restart: a reload cannot change it", "Restart the server, or take the change back"
            )
