"""The generated options: every one of the installed Gunicorn, with what Gunicorn itself would make of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
from gunicorn import config
from gunicorn.config import Config, make_settings

from promgun.cli.choices import CHOICES
from promgun.cli.gunicorn_options import (
    CHECKED_HERE,
    SettingOption,
    default_text,
    gunicorn_options,
    help_text,
    options_for,
    overrides,
    plain,
    spellings,
    variable,
)
from promgun.cli.main import main
from promgun.cli.run import run
from promgun.config import gunicorn_settings as own_options
from promgun.config.worker_types import WORKER_TYPES
from tests.support.offenders import offenders

pytestmark = pytest.mark.seam

SETTINGS: dict[str, Any] = {name: setting for name, setting in make_settings().items() if setting.cli}
FLAGS = [name for name, setting in SETTINGS.items() if setting.action in {"store_true", "store_const"}]
VALUED = [name for name in SETTINGS if name not in FLAGS]
#: Values for settings whose validator looks at them closely; a number or a word does for the others.
VALUES = {
    "metrics_bind": "127.0.0.1:7",
    "metrics_collector": "shop.metrics:Stock",
    "metrics_label": "zone=eu",
    "metrics_route": "/users/{id}",
    "chdir": "/",
    "forwarded_allow_ips": "10.0.0.0/8",
    "group": str(os.getegid()),
    "http2_max_frame_size": "16385",
    "metrics_duration_buckets": "0.1,1",
    "metrics_size_buckets": "10,100",
    "proxy_allow_ips": "*",
    "push_gateway": "http://127.0.0.1:9091",
    "reload_extra_files": __file__,
    "ssl_version": "2",
    "statsd_host": "localhost:8125",
    "umask": "022",
    "user": str(os.geteuid()),
    "uwsgi_allow_ips": "127.0.0.1",
    "worker_class": "gthread",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PROMGUN_")]:
        monkeypatch.delenv(name)


def context(*args: str, resilient: bool = False) -> click.Context:
    """``promgun run`` with these arguments, as its group calls it."""
    parent = click.Context(main, info_name="promgun", **main.context_settings)
    return run.make_context("run", list(args), parent=parent, resilient_parsing=resilient)


def given(*args: str) -> dict[str, object]:
    """What ``promgun run`` with these arguments hands on."""
    return overrides(context(*args))


def refusal(*args: str) -> str:
    """Why a command line is refused."""
    with pytest.raises(click.UsageError) as caught:
        given(*args)
    assert caught.value.exit_code == 2
    return caught.value.format_message()


def value_for(name: str) -> str:
    """A value that the setting takes: a share for a share, else a number, which passes for a word as well."""
    usual = "0.5" if isinstance(SETTINGS[name].default, float) else "7"
    return VALUES.get(name) or CHOICES.get(name, (usual,))[-1]


def as_gunicorn_reads(args: list[str]) -> dict[str, object]:
    """What Gunicorn's own parser takes from a command line."""
    read = vars(Config().parser().parse_args(args))
    read.pop("args")
    return {name: value for name, value in read.items() if value is not None}


# -- the same as Gunicorn --------------------------------------------------------------------------------------------


def test_every_setting_with_a_flag_has_its_option_once() -> None:
    names = [option.name for option in gunicorn_options()]
    assert sorted(map(str, names)) == sorted(SETTINGS)
    assert {"metrics_bind", "metrics_server", "metrics_dir"} <= set(names)


def test_every_flag_of_gunicorn_is_taken() -> None:
    missing = {name: set(setting.cli) - set(spellings(setting)) for name, setting in SETTINGS.items()}
    assert {name: flags for name, flags in missing.items() if flags} == {}


def test_no_spelling_means_two_things() -> None:
    flags = [flag for option in gunicorn_options() for flag in option.opts]
    assert len(flags) == len(set(flags))


def test_value_is_what_gunicorn_reads() -> None:
    def check(name: str) -> None:
        value = value_for(name)
        for flag in SETTINGS[name].cli:
            args = [flag, value]
            assert given(*args, "shop:app") == as_gunicorn_reads([*args, "shop:app"]), flag

    assert offenders(VALUED, check) == {}


def test_flag_is_what_gunicorn_reads() -> None:
    def check(name: str) -> None:
        for flag in SETTINGS[name].cli:
            assert given(flag) == as_gunicorn_reads([flag]), flag

    assert offenders(FLAGS, check) == {}


def test_value_is_one_that_the_configuration_takes() -> None:
    def check(name: str) -> None:
        cfg = Config()
        (pair,) = given(SETTINGS[name].cli[-1], value_for(name)).items()
        cfg.set(*pair)

    assert offenders(VALUED, check) == {}


@pytest.mark.parametrize(
    "args",
    [
        ["-b", "127.0.0.1:1", "--bind", "[::1]:2", "-b=x"],
        ["-w3", "-k", "sync"],
        ["--workers=3", "shop:app", "--threads", "2"],
        ["-e", "A=1 2", "-e", "B="],
        ["--proxy-protocol", "--preload"],
        ["--proxy-protocol=v1"],
        ["--proxy-protocol", "v2", "-D"],
        ["--no-sendfile", "-R"],
        ["-m", "077"],
        ["-m", "0o22"],
        ["--limit-request-field_size", "9"],
    ],
)
def test_line_is_what_gunicorn_reads(args: list[str]) -> None:
    assert given(*args) == as_gunicorn_reads(args)


def test_nothing_given_is_nothing_handed_on() -> None:
    assert given() == {}
    assert given("shop:app") == {}


# -- variables -------------------------------------------------------------------------------------------------------


def test_variable_says_the_same_as_the_flag() -> None:
    def check(name: str) -> None:
        setting, value = SETTINGS[name], value_for(name)
        by_flag = given(setting.cli[-1], value)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable(spellings(setting)), value)
            assert given() == by_flag

    assert offenders(VALUED, check) == {}


def test_variable_of_a_flag() -> None:
    def check(name: str) -> None:
        setting = SETTINGS[name]
        for yes in ("1", "true", "Yes"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(variable(spellings(setting)), yes)
                assert given() == given(setting.cli[0]), yes

    assert offenders(FLAGS, check) == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PROMGUN_RELOAD", "0", {"reload": False}),
        ("PROMGUN_NO_METRICS_SERVER", "0", {"metrics_server": True}),
        ("PROMGUN_NO_SENDFILE", "no", {}),
        ("PROMGUN_BIND", "127.0.0.1:1 [::1]:2", {"bind": ["127.0.0.1:1", "[::1]:2"]}),
        ("PROMGUN_WORKER_TYPE", "gevent", {"worker_class": "gevent"}),
        ("PROMGUN_LIMIT_REQUEST_FIELD_SIZE", "9", {"limit_request_field_size": 9}),
        ("PROMGUN_PROXY_PROTOCOL", "v1", {"proxy_protocol": "v1"}),
        ("PROMGUN_WORKERS", "", {}),
    ],
)
def test_variable(name: str, value: str, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert given() == expected


def test_flag_goes_before_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMGUN_WORKERS", "7")
    monkeypatch.setenv("PROMGUN_BIND", "127.0.0.1:1")
    assert given("-w", "2", "-b", "x:2") == {"workers": 2, "bind": ["x:2"]}


def test_bad_variable_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMGUN_WORKERS", "many")
    assert refusal() == "Invalid value for the variable PROMGUN_WORKERS: 'many' is not a whole number"


# -- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["-w", "many"], "Invalid value for '-w' / '--workers': 'many' is not a whole number"),
        (["--workers", "-1"], "must be positive: -1"),
        (["-m", "rw"], "'rw' is not a whole number"),
        (["--metrics-duration-buckets", "1,x"], "'x' is not a number"),
        (["--log-level", "loud"], "'loud' is not one of info, debug, warning, error, critical"),
        (["--log-syslog-facility", "moon"], "'moon' is not one of auth,"),
        (["--reload-engine", "magic"], "'magic' is not one of auto, poll, inotify"),
        (["--header-map", "x"], "'x' is not one of drop, refuse, dangerous"),
        (["--proxy-protocol", "shop:app"], "'shop:app' is not one of off, auto, v1, v2"),
        (["--chdir", "/no/such/place"], "can't chdir to '/no/such/place'"),
        (["-u", "no-such-user"], "No such user: 'no-such-user'"),
        (["-g", "no-such-group"], "No such group: 'no-such-group'"),
        (["--forwarded-allow-ips", "here"], "'here' does not appear to be an IPv4 or IPv6 network"),
        (["--reload-extra-file", "/no/such/file"], "File /no/such/file does not exist"),
        (["--metrics-duration-buckets", "2,1"], "Invalid value for '--metrics-duration-buckets': buckets must rise"),
        (["--metrics-max-label-sets", "0"], "must be at least 1"),
        (["--metrics-label", "route=x"], "'--metrics-label': 'route' is a label of promgun's own metrics"),
        (["--metrics-label", "zone=eu", "--metrics-label", "le=1"], "'le' is a label of promgun's own"),
        (["--metrics-label", "zone"], "'zone' is not NAME=VALUE, e.g. environment=staging"),
        (["--metrics-label", "a-b=c"], "'a-b' is no name of a label"),
        (["--metrics-label", "__a=c"], "'__a' is no name of a label"),
        (["--metrics-label", "zone="], "the label 'zone' has no value"),
        (["--metrics-route", "users"], "'--metrics-route': the route 'users' does not begin with a slash"),
        (
            ["--metrics-route", "/a", "--metrics-route", "/{id:hex}"],
            "has a type other than str, int, float, uuid, path",
        ),
        (["--metrics-route", "@/no/such/file"], "cannot read routes from /no/such/file: [Errno 2]"),
        (["--metrics-exclude-route", ""], "a glob of routes cannot be empty"),
        (["--metrics-exclude-route", "x" * 10_001], "more than 10,000 characters"),
        (
            ["-k", "gevnt"],
            "no worker type is called 'gevnt'. Did you mean 'gevent'? Choose sync, gthread, gevent, eventlet,",
        ),
        (["-k", "zzz"], "no worker type is called 'zzz'. Choose sync"),
        (["--no-such"], "No such option"),
        (["--workers"], "Option '--workers' requires an argument"),
        (["a:b", "c:d"], "Got unexpected extra argument (c:d)"),
    ],
)
def test_bad_value_is_refused_with_its_flag_and_reason(args: list[str], reason: str) -> None:
    assert reason in refusal(*args)


def test_settings_that_warn_do_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    """The validator is asked here and again where the value is used: only the second may speak."""
    given("--ssl-version", "2")
    assert capfd.readouterr().err == ""


# -- worker types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-k", "--worker-type", "--worker-class"])
@pytest.mark.parametrize(
    "value",
    [
        *(worker_type.name for worker_type in WORKER_TYPES),
        "tornado",
        "gevent_pywsgi",
        "shop.workers.Own",
        "egg:gunicorn#sync",
        "#gthread",
        "promgun.PrometheusWorker",
    ],
)
def test_worker_type(flag: str, value: str) -> None:
    assert given(flag, value) == {"worker_class": value}


# -- help and the table of choices -----------------------------------------------------------------------------------


def test_sections_in_order_ours_first() -> None:
    sections = [option.setting.section for option in gunicorn_options()]
    order = list(dict.fromkeys(sections))
    assert order[0] == own_options.SECTION
    theirs = [setting.section for setting in SETTINGS.values() if setting.section != own_options.SECTION]
    assert order[1:] == list(dict.fromkeys(theirs))
    assert sections == sorted(sections, key=order.index)


def test_help_is_a_clean_sentence() -> None:
    def check(name: str) -> None:
        sentence = help_text(SETTINGS[name]).partition("  [default: ")[0]
        assert sentence.endswith(".")
        assert not {"`", "\n"} & set(sentence)
        assert ":ref:" not in sentence
        assert len(sentence) < 170

    assert offenders(SETTINGS, check) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("workers", "1"),
        ("chdir", "."),
        ("user", ""),
        ("daemon", ""),
        ("umask", "0o0"),
        ("pidfile", ""),
        ("metrics_bind", "127.0.0.1:9164"),
        ("metrics_size_buckets", "256,1024,4096,16384,65536,262144,1048576,4194304,16777216"),
    ],
)
def test_default_in_help(name: str, text: str) -> None:
    assert default_text(SETTINGS[name]) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (":ref:`The Gunicorn config file<configuration_file>`.", "The Gunicorn config file."),
        ("Extends :ref:`reload` option", "Extends reload option"),
        ("the ``asgi`` worker, *max_requests* 2*3", "the asgi worker, max_requests 2*3"),
    ],
)
def test_markup_is_taken_out(markup: str, text: str) -> None:
    assert plain(markup) == text


def test_known_choice_passes_the_settings_own_validator() -> None:
    def check(choice: tuple[str, str]) -> None:
        name, value = choice
        make_settings()[name].set(value)
        assert given(SETTINGS[name].cli[0], value)

    choices = [(name, value) for name, values in CHOICES.items() if name in SETTINGS for value in values]
    assert offenders(choices, check) == {}


@pytest.mark.parametrize("name", [name for name in CHOICES if name in SETTINGS])
def test_first_choice_is_the_default(name: str) -> None:
    if name != "syslog_facility":
        assert str(getattr(SETTINGS[name].default, "value", SETTINGS[name].default)) == CHOICES[name][0]


@pytest.mark.parametrize("name", sorted(CHECKED_HERE))
def test_what_we_check_gunicorn_does_not(name: str) -> None:
    """Should its validator learn to refuse, ours is to go."""
    SETTINGS[name].validator("no such value")


def test_choices_do_not_shadow_a_validator_that_takes_more() -> None:
    assert given("--proxy-protocol", "true") == {"proxy_protocol": "true"}
    assert given("--log-level", "DEBUG") == {"loglevel": "DEBUG"}


# -- completion ------------------------------------------------------------------------------------------------------


def completions(flag: str, incomplete: str) -> list[tuple[str, str]]:
    ctx = context(resilient=True)
    option = next(option for option in run.get_params(ctx) if flag in option.opts)
    return [(item.type, item.value) for item in option.shell_complete(ctx, incomplete)]


@pytest.mark.parametrize(
    "flag", ["-c", "--pid", "--certfile", "--keyfile", "--access-logfile", "--log-config", "--reload-extra-file"]
)
def test_files_are_for_the_shell_to_find(flag: str) -> None:
    assert completions(flag, "x") == [("file", "x")]


@pytest.mark.parametrize("flag", ["--chdir", "--metrics-dir", "--worker-tmp-dir", "--pythonpath"])
def test_folders_are_for_the_shell_to_find(flag: str) -> None:
    assert completions(flag, "") == [("dir", "")]


def test_worker_types_complete() -> None:
    assert completions("-k", "g") == [("plain", "gthread"), ("plain", "gevent")]


def test_choices_complete() -> None:
    assert completions("--header-map", "") == [("plain", value) for value in CHOICES["header_map"]]
    assert completions("--workers", "") == []


def test_application_completes_from_the_directory_it_is_run_in(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\napp = Flask(__name__)\nlimit: int = make()\ndef wsgi(environ, start_response): ...\n"
    )
    ctx = context("--chdir", str(tmp_path), resilient=True)
    argument = next(param for param in run.get_params(ctx) if param.name == "app")
    offered = [item.value for item in argument.shell_complete(ctx, "shop:")]
    assert offered == ["shop:app", "shop:limit", "shop:wsgi"]


def test_settings_without_a_flag_have_no_option() -> None:
    absent = {setting.name for setting in config.KNOWN_SETTINGS if not setting.cli}
    assert {"wsgi_app", "on_starting"} <= absent
    assert absent.isdisjoint(option.name for option in gunicorn_options())


def test_option_knows_its_setting() -> None:
    option = next(option for option in gunicorn_options() if option.name == "workers")
    assert isinstance(option, SettingOption)
    assert option.envvar == "PROMGUN_WORKERS"
    assert option.setting.section == "Worker Processes"


# -- only the options that are named -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "variables", "names"),
    [
        ("shop:app", (), set()),
        ("shop:app -w 4 --bind=127.0.0.1:7", (), {"workers", "bind"}),
        ("-w4 -b127.0.0.1:7", (), {"workers", "bind"}),
        ("--preload", ("PROMGUN_WORKER_TYPE", "PROMGUN_TYPO"), {"preload_app", "worker_class"}),
        ("-t -5", (), None),
        ("--no-such", (), None),
        ("-RD", (), None),
        ("-z", (), None),
        ("--help", (), None),
    ],
)
def test_options_that_a_command_line_names(line: str, variables: tuple[str, ...], names: set[str] | None) -> None:
    options = options_for(line.split(), variables)
    assert (None if options is None else {option.name for option in options}) == names


def test_named_options_are_read_as_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMGUN_WORKERS", "3")
    words = [word for name in FLAGS for word in SETTINGS[name].cli]
    words += [word for name in VALUED for word in (SETTINGS[name].cli[0], value_for(name))]
    named = given(*words, "shop:app")
    with monkeypatch.context() as patch:
        patch.setattr("promgun.cli.gunicorn_options.options_for", lambda *_: None)
        assert given(*words, "shop:app") == named
