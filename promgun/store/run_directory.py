"""The directory of a run: its parts, who may write in them, its lock.

    RUN/              0711, the master's user; locked (flock) on the directory itself while any process of the run lives
      version         the format of what is in it
      master/         0750, the master's user and the workers' group: what masters write
      slots/          0700, the workers' user: what workers write
      client/         0700, the workers' user
        multiproc/    what PROMETHEUS_MULTIPROC_DIR names

Only root writes where root's own files lie. Below ``slots`` and ``client`` root opens next to nothing, and then by
descriptors and through no link (``docs/explanation/store.md``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection
from pathlib import Path

from promgun.store.descriptor import Descriptor, Identity, identity_of
from promgun.store.new_file import Owner
from promgun.store.slot_lock import is_any_slot_held
from promgun.system.safe_open import open_folder, open_regular

FORMAT = "promgun store 4\n"
#: The folder in which prometheus_client writes its files and its multiprocess collector reads them.
MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MASTER, SLOTS, CLIENT, MULTIPROC, VERSION = "master", "slots", "client", "multiproc", "version"
#: A symbolic link to the second directory for stock readers, if there is one.
SECOND_CLIENT = "second_client"


def directory_identity(directory: int | Path) -> Identity:
    """Return the identity of an open directory, or of the one that a path leads to; it does not change when the path
    leads elsewhere.
    """
    return identity_of(os.stat(directory))


class RunDirectory:
    """A run's directory, held open and locked by this process and its forks.

    A ``private`` one is removed by the last master to leave. ``second_client`` is the directory that the user named by
    ``--metrics-dir`` or an inherited ``PROMETHEUS_MULTIPROC_DIR``: the application's files are linked there too. One
    that is only read has no descriptor (``fd`` is -1).
    """

    def __init__(self, path: Path, fd: int, owner: Owner, *, private: bool, second_client: Path | None = None) -> None:
        self.path = path
        self._descriptor = Descriptor(fd, lock=fcntl.LOCK_SH) if fd >= 0 else None
        self.owner = owner
        self.private = private
        self.second_client = second_client
        self.identity = directory_identity(fd if fd >= 0 else path)
        self._owner_pid = os.getpid() if fd >= 0 else -1

    @property
    def fd(self) -> int:
        """The open directory's descriptor, -1 without one. It is opened and locked again if the application closed it;
        raises ``OSError`` when that is impossible.
        """
        return -1 if self._descriptor is None else self._descriptor.of(self.path)

    @property
    def multiproc(self) -> Path:
        """The directory that ``PROMETHEUS_MULTIPROC_DIR`` names."""
        return self.path / CLIENT / MULTIPROC

    @property
    def master(self) -> Path:
        """The directory in which masters write."""
        return self.path / MASTER

    @property
    def own_master(self) -> Path:
        """:attr:`master` as a path through the open directory, so that nobody can redirect a master's writes by
        replacing a directory above. Where there is no /proc it is :attr:`master` itself.
        """
        with contextlib.suppress(OSError):
            descriptor = Path(f"/proc/self/fd/{self.fd}")
            if descriptor.exists():
                return descriptor / MASTER
        return self.master

    @property
    def slots(self) -> Path:
        """The directory in which workers write."""
        return self.path / SLOTS

    @property
    def clients(self) -> tuple[Path, ...]:
        """The directories in which stock readers look for the application's files."""
        return (self.multiproc,) if self.second_client is None else (self.multiproc, self.second_client)

    @property
    def is_open_to_me(self) -> bool:
        """Whether this process runs as the workers' user; before that, it opens nothing that they can write."""
        return self.owner.uid is None or os.geteuid() == self.owner.uid

    def open_master(self) -> int:
        """Return a descriptor of the directory that masters write in; raises ``OSError``."""
        return open_folder(MASTER, dir_fd=self.fd)

    def open_slots(self) -> int:
        """Return a descriptor of the directory that workers write in; raises ``OSError``."""
        return open_folder(SLOTS, dir_fd=self.fd) if self.fd >= 0 else open_folder(self.slots)

    def wake_upkeep(self) -> None:
        """Have resting workers see at their next heartbeat to what an ended one left; never raises."""
        with contextlib.suppress(OSError):
            os.utime(self.master)

    def leave_to_masters(self) -> None:
        """Release the lock, in a worker: its slot's lock shows that it lives."""
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None

    def close_in_this_process(self) -> None:
        """Make this process the one that closes the directory: ``--daemon`` forks after the directory was made."""
        self._owner_pid = os.getpid()

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that closes the directory: false in workers, and after :meth:`close`."""
        return os.getpid() == self._owner_pid

    def give_to(self, owner: Owner) -> None:
        """Make ``owner`` the workers' user; raises ``OSError``."""
        self.owner = owner
        _make_parts(self.fd, owner)
        self._give_master_files()

    def _give_master_files(self) -> None:
        """Let the workers' group read files that a master made before it knew the workers' user."""
        folder_fd = self.open_master()
        try:
            for name in os.listdir(folder_fd):
                with contextlib.suppress(OSError):
                    fd = open_regular(folder_fd, name)
                    try:
                        Owner(None, self.owner.gid).take(fd)
                    finally:
                        os.close(fd)
        finally:
            os.close(folder_fd)

    def restore_client(self) -> None:
        """Give the client directory back to the workers after code that runs as root, such as a configuration file,
        remade it.

        Never raises. A missing directory is made by the workers themselves.
        """
        with contextlib.suppress(OSError):
            client_fd = open_folder(CLIENT, dir_fd=self.fd)
            try:
                fd = open_folder(MULTIPROC, dir_fd=client_fd)
                try:
                    if os.fstat(fd).st_uid == os.geteuid():
                        os.fchmod(fd, 0o700)
                        _give(fd, self.owner)
                finally:
                    os.close(fd)
            finally:
                os.close(client_fd)

    def close(
        self, own_slots: Collection[int] = (), before_removal: Callable[[RunDirectory], None] = lambda _run: None
    ) -> None:
        """Leave the directory. The last master to leave removes a private one, unless workers of another, killed master
        still use it: then the sweep of a later run does. ``own_slots`` are those of this master's own workers.

        ``before_removal`` is called while its files are still there. Does nothing in processes that do not own the
        directory: workers run this too.
        """
        if not self.is_mine:
            return
        self._owner_pid = -1
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            last = False
        else:
            last = True
        if last and self.private and not self._may_have_workers(own_slots):
            from promgun.system.remove_tree import empty_folder  # noqa: PLC0415 - see late_upkeep.load_ahead

            before_removal(self)
            empty_folder(self.fd)
            with contextlib.suppress(OSError):
                self.path.rmdir()
        self.leave_to_masters()

    def _may_have_workers(self, passed_over: Collection[int]) -> bool:
        try:
            return has_workers(self.fd, passed_over)
        except OSError:
            # The workers' user may have made its directory unreadable.
            return True


def has_workers(fd: int, passed_over: Collection[int] = ()) -> bool:
    """Whether workers of a run live, with or without a master, other than those in the slots ``passed_over``."""
    try:
        slots_fd = open_folder(SLOTS, dir_fd=fd)
    except OSError:
        return False
    try:
        return is_any_slot_held(slots_fd, passed_over)
    finally:
        os.close(slots_fd)


def changed_option(fd: int, owner: Owner) -> str:
    """Return the option that names other workers than those of an open run's directory, empty if none does."""
    if owner.uid is not None and os.stat(SLOTS, dir_fd=fd, follow_symlinks=False).st_uid != owner.uid:
        return "--user"
    # only this group may read what masters write
    if owner.gid is not None and os.stat(MASTER, dir_fd=fd, follow_symlinks=False).st_gid != owner.gid:
        return "--group"
    return ""


def fill(fd: int, owner: Owner, second_client: Path | None) -> None:
    """Set up an open, empty directory as a run's; raises ``OSError``."""
    os.fchmod(fd, 0o711)
    version = os.open(VERSION, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=fd)
    try:
        os.fchmod(version, 0o644)
        # Not fatal on a full file system: the version file is for people, and for later versions.
        with contextlib.suppress(OSError):
            os.write(version, FORMAT.encode())
    finally:
        os.close(version)
    if second_client is not None:
        os.symlink(second_client, SECOND_CLIENT, dir_fd=fd)
    _make_parts(fd, owner)


def _make_parts(fd: int, owner: Owner) -> None:
    """Make what is missing in an open run directory; raises ``OSError``."""
    _make_folder(fd, MASTER, 0o750, Owner(None, owner.gid))
    _make_folder(fd, SLOTS, 0o700, owner)
    _make_client(fd, owner)


def _make_client(fd: int, owner: Owner) -> None:
    client_fd = _make_folder(fd, CLIENT, 0o700, Owner(), keep=True)
    try:
        _make_folder(client_fd, MULTIPROC, 0o700, owner)
        _give(client_fd, owner)
    finally:
        os.close(client_fd)


def _make_folder(parent_fd: int, name: str, mode: int, owner: Owner, *, keep: bool = False) -> int:
    """Make a folder of this mode, whatever the umask is, if it is missing, and give one of root's to ``owner``."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    fd = open_folder(name, dir_fd=parent_fd)
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, mode)
            _give(fd, owner)
    except BaseException:
        os.close(fd)
        raise
    if not keep:
        os.close(fd)
    return fd


def _give(fd: int, owner: Owner) -> None:
    if os.geteuid() == 0 and os.fstat(fd).st_uid == 0:
        os.fchown(fd, -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid)
