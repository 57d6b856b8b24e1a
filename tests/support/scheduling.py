"""Which tests run in the same of xdist's processes: those that share a server, which each process would start anew."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.support.sandbox import WORKER_TYPES

#: Modules with a fixture of a whole server for several tests.
SHARING = frozenset(
    {"test_app_metrics", "test_exits", "test_forged_store", "test_requests", "test_root_commands", "test_top"}
)


class ByServer(LoadScopeScheduling):  # type: ignore[misc] # it comes without types
    """Hand out tests one by one, and as one those of a module that share a server, by worker type."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the name of what is handed out as one; xdist asks for it.

        Its own marker ``xdist_group`` does nothing with pytest 9.2 (xdist 3.8), where a plugin cannot change the id of
        a test any more.
        """
        path, _, name = nodeid.partition("::")
        if path.rpartition("/")[2].removesuffix(".py") not in SHARING:
            return nodeid
        parameters = name.partition("[")[2].removesuffix("]").split("-")
        return "-".join([path, *(kind for kind in WORKER_TYPES if kind in parameters)])
