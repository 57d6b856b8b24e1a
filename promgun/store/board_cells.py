"""The cells of a board, and what some of them hold."""

from __future__ import annotations

from typing import Final

from promgun.system.closed_set import ClosedSet, Member


class Role(int, metaclass=ClosedSet):
    """What kind of process owns a slot."""

    NONE = Member(0)
    MASTER = Member(1)
    WORKER = Member(2)
    OTHER = Member(3)


class Cell:
    """The cells of a board, by index.

    No enum: one of fifty members takes half a millisecond to make (CPython 3.11).
    """

    MAGIC: Final = 0
    PID: Final = 1
    #: start of the process in clock ticks since boot (/proc/PID/stat, field 22): two processes of one pid differ
    PROCESS_START: Final = 2
    ROLE: Final = 3
    AGE: Final = 4
    CLAIMED: Final = 5
    BOOTED: Final = 6
    DRAINING: Final = 7
    HEARTBEAT: Final = 8
    TIMEOUT: Final = 9
    CAPACITY: Final = 10
    SERVED: Final = 11
    MAX_REQUESTS: Final = 12
    TARGET: Final = 13
    #: running requests for which the request table has no room (it records 64 of a worker one by one)
    BEYOND_TABLE: Final = 14
    #: sum of the ends minus sum of the starts of such requests since the slot was taken: with BEYOND_TABLE and the
    #: current time it gives their busy nanoseconds, running requests included
    BEYOND_TABLE_BALANCE: Final = 15
    #: counted up before and after each change of the two above: unequal meanwhile, and while a new owner folds the slot
    WRITES_BEGUN: Final = 16
    WRITES_ENDED: Final = 17
    EXIT_HINT: Final = 18  #: why the worker ends, as the worker itself says
    #: only the process itself can read these once it has changed its user (proc(5), "dumpable"), so it reports them
    OPEN_FDS: Final = 19
    UNIQUE_MEMORY: Final = 20
    OWN_CPU_USER: Final = 21  #: CPU nanoseconds that a master has used: folded when the next master takes the slot
    OWN_CPU_SYSTEM: Final = 22
    #: requests of BEYOND_TABLE that are counted; lowered after it, so that a kill in between has none counted twice
    BEYOND_TABLE_ANSWERED: Final = 23
    WEBSOCKETS: Final = 24  #: open ones, plus 1; 0 where the worker's class has none, under WSGI until the first
    LOOP_DUE: Final = 25  #: when the next step of an event loop is due; 0 where none is
    #: number of a ``LAG_WINDOW`` plus 1 (0: no loop); the most that the loop was late in it, and in the one before
    LOOP_WINDOW: Final = 26
    LOOP_LARGEST: Final = 27
    LOOP_LARGEST_BEFORE: Final = 28
    # What follows belongs to the slot and outlives its owners.
    BUSY_BASE: Final = 32
    ERRORS_NO_SPACE: Final = 33
    ERRORS_CORRUPT: Final = 34
    ERRORS_PERMISSION: Final = 35
    CPU_USER_BASE: Final = 36
    CPU_SYSTEM_BASE: Final = 37
    SWITCHES_VOLUNTARY_BASE: Final = 38
    SWITCHES_INVOLUNTARY_BASE: Final = 39
    GC_COLLECTIONS_0: Final = 40
    GC_COLLECTIONS_1: Final = 41
    GC_COLLECTIONS_2: Final = 42
    GC_PAUSE: Final = 43
    LAST_RELOAD: Final = 44  #: Unix seconds
    #: 1 once a worker has owned the slot: its counters are shown from then on
    WORKED: Final = 45
    #: nanoseconds for which the slot's owners were ready to run but given no CPU, as they reported it
    CPU_WAIT: Final = 46
    ERRORS_VANISHED: Final = 47
    #: random at first: tells a file from one made anew, and from itself before a row got other values
    EDITION: Final = 48
    LOOP_LATE: Final = 50  #: nanoseconds by which event loops were late, plus 1; 0 where no owner had one
    #: while a new owner folds the slot, its busy nanoseconds in place of all other cells; else 0
    FOLDING_BUSY: Final = 49


class ExitHint(int, metaclass=ClosedSet):
    """What a worker writes before it ends."""

    NONE = Member(0)
    MAX_REQUESTS = Member(1)
    PARENT_LOST = Member(2)
    SIGNALLED = Member(3)
    CODE_CHANGED = Member(4)
    ABORTED = Member(5)
