"""The cells of a board, and what some of them hold."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """What kind of process owns a slot."""

    NONE = 0
    MASTER = 1
    WORKER = 2
    OTHER = 3


class Cell(IntEnum):
    """The cells of a board, by index."""

    MAGIC = 0
    PID = 1
    #: start of the process in clock ticks since boot (/proc/PID/stat, field 22): two processes of one pid differ
    PROCESS_START = 2
    ROLE = 3
    AGE = 4
    CLAIMED = 5
    BOOTED = 6
    DRAINING = 7
    HEARTBEAT = 8
    TIMEOUT = 9
    CAPACITY = 10
    SERVED = 11
    MAX_REQUESTS = 12
    TARGET = 13
    #: running requests for which the request table has no room (it records 64 of a worker one by one)
    BEYOND_TABLE = 14
    #: sum of the ends minus sum of the starts of such requests since the slot was taken: with BEYOND_TABLE and the
    #: current time it gives their busy nanoseconds, running requests included
    BEYOND_TABLE_BALANCE = 15
    #: counted up before and after each change of the two above: unequal meanwhile, and while a new owner folds the slot
    WRITES_BEGUN = 16
    WRITES_ENDED = 17
    EXIT_HINT = 18  #: why the worker ends, as the worker itself says
    #: only the process itself can read these once it has changed its user (proc(5), "dumpable"), so it reports them
    OPEN_FDS = 19
    UNIQUE_MEMORY = 20
    OWN_CPU_USER = 21  #: CPU nanoseconds that a master has used: folded when the next master takes the slot
    OWN_CPU_SYSTEM = 22
    #: requests of BEYOND_TABLE that are counted; lowered after it, so that a kill in between has none counted twice
    BEYOND_TABLE_ANSWERED = 23
    WEBSOCKETS = 24  #: open ones, plus 1; 0 where the worker's class has none, under WSGI until the first
    LOOP_DUE = 25  #: when the next step of an event loop is due; 0 where none is
    #: number of a ``LAG_WINDOW`` plus 1 (0: no loop); the most that the loop was late in it, and in the one before
    LOOP_WINDOW = 26
    LOOP_LARGEST = 27
    LOOP_LARGEST_BEFORE = 28
    # What follows belongs to the slot and outlives its owners.
    BUSY_BASE = 32
    ERRORS_NO_SPACE = 33
    ERRORS_CORRUPT = 34
    ERRORS_PERMISSION = 35
    CPU_USER_BASE = 36
    CPU_SYSTEM_BASE = 37
    SWITCHES_VOLUNTARY_BASE = 38
    SWITCHES_INVOLUNTARY_BASE = 39
    GC_COLLECTIONS_0 = 40
    GC_COLLECTIONS_1 = 41
    GC_COLLECTIONS_2 = 42
    GC_PAUSE = 43
    LAST_RELOAD = 44  #: Unix seconds
    #: 1 once a worker has owned the slot: its counters are shown from then on
    WORKED = 45
    #: nanoseconds for which the slot's owners were ready to run but given no CPU, as they reported it
    CPU_WAIT = 46
    ERRORS_VANISHED = 47
    #: random at first: tells a file from one made anew, and from itself before a row got other values
    EDITION = 48
    LOOP_LATE = 50  #: nanoseconds by which event loops were late, plus 1; 0 where no owner had one
    FOLDING_BUSY = 49  #: while a new owner folds the slot, its busy nanoseconds in place of all other cells; else 0


class ExitHint(IntEnum):
    """What a worker writes before it ends."""

    NONE = 0
    MAX_REQUESTS = 1
    PARENT_LOST = 2
    SIGNALLED = 3
    CODE_CHANGED = 4
    ABORTED = 5
