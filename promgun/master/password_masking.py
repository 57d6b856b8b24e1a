"""Masks the Pushgateway's password in workers: only the master pushes, and hands the password on across SIGUSR2.

A worker is a fork. What the master has read stays somewhere in the worker's memory, but nothing that code in a worker
is given leads to it: neither ``worker.cfg``, ``worker.app``, the environment, nor the command line.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

from gunicorn.config import Config

from promgun.config.push_gateway import SECRET_SETTINGS, SECRET_VARIABLES, mask_gateway, passwords_among
from promgun.config.run_settings import RunSettings
from promgun.system.secrets import MASK, may_have_password


def mask_in_worker(arbiter: Any) -> None:
    """Mask the password in what a fork of the master has of its ``Arbiter``: the application, and every configuration
    in use. Workers and the log may have one from before a reload; the ``cfg`` of a user's logger class may be anything.
    """
    application = arbiter.app
    _mask_variables(application.environment_at_start or {})
    given = application.run_settings.overrides
    masked = {name: mask_gateway(str(given[name])) for name in SECRET_SETTINGS & given.keys()}
    application.run_settings = RunSettings(application.run_settings.app, {**given, **masked})
    for arguments in (sys.argv, sys.orig_argv, arbiter.START_CTX["args"]):
        _mask_arguments(arguments)
    older = (getattr(one, "cfg", None) for one in (arbiter.log, *arbiter.WORKERS.values()))
    for cfg in (application.cfg, arbiter.cfg, *older):
        if isinstance(cfg, Config):
            _mask_configuration(cfg)


def _mask_configuration(cfg: Any) -> None:
    gateway = cfg.push_gateway
    if gateway is not None and gateway.password:
        cfg.set("push_gateway", gateway._replace(password=MASK))
    _mask_variables(cfg.env_orig)


def _mask_variables(environment: MutableMapping[str, str]) -> None:
    for name in SECRET_VARIABLES:
        if may_have_password(environment.get(name, "")):
            environment[name] = MASK


def _mask_arguments(arguments: list[str]) -> None:
    for secret in passwords_among(arguments):
        arguments[:] = [argument.replace(secret, mask_gateway(secret)) for argument in arguments]
