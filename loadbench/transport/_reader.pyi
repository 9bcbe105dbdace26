"""The thread that reads sockets, in C: see _reader.c."""

Taken = tuple[list[bytes], list[int], list[int], int, int]
"""Pieces, when each arrived, how much later it was read (ns), and which pieces are bodies of chunks: [first, last)."""

class Reader:
    def open(self, fd: int, /) -> int:
        """Read this socket from now on; returns its slot."""

    def forget(self, slot: int, /) -> None: ...
    def begin(self, slot: int, eager: bool, /) -> None:
        """A request goes out: what comes is a response. Eager wakes Python at each read."""

    def look(self, slot: int, /) -> bool:
        """Read what is there now; whether there is anything to take."""

    def ready(self, most: int, /) -> list[int]:
        """Slots to take from, each once. The descriptor stays readable while there are more."""

    def take(self, slot: int, /) -> tuple[Taken, int | None]:
        """What came since the last call; errno where the connection ended, 0 for its end in order."""

    def place(self) -> str:
        """Before whom the thread gets a core: real-time, short slice, ordinary."""

    def fileno(self) -> int:
        """Readable when there are slots to take from."""

    def close(self) -> None: ...
