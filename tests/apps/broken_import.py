"""An application whose module fails when it is imported."""

import a_module_that_nobody_has  # type: ignore[import-not-found] # noqa: F401 - that is its purpose


def app() -> None:
    """Stand where an application would."""
