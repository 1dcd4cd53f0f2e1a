"""What a disk holds, and what is left of it when the power goes: pure, decided by a seed.

Two states are kept apart: what was written (what the process reads back) and what is durable. The
contract is POSIX's and no more, as ALICE found applications to rely on more (Pillai et al., "All
File Systems Are Not Created Equal", OSDI 2014) and as LazyFS injects it (Ramos, Azevedo et al.,
"When Amnesia Strikes", VLDB 2024):

* bytes and size of a file become durable by a sync of that file, and of nothing else;
* a name (creation, removal, rename) becomes durable by a sync of its directory; changes of one
  directory reach the disk in order, so that a rename is whole or not there;
* a sync that failed leaves the bytes readable and **not** durable, and a later sync that succeeds
  does not make them so unless they are written again (the "fsyncgate" of 2018).

A power loss keeps, file by file as the seed decides, nothing unsynced, the first so many writes,
or any mixture of 512-byte sectors as they stood after any of the writes, with any of the sizes the
file had meanwhile: pages of one write reach a disk in any order. `torn` lets the last write of a
file stay up to any byte.

Simpler than a disk: mode and times of a file are durable at once, and there are no links.
"""

from __future__ import annotations

import errno
import operator
import os
import stat
from collections.abc import Callable, Iterator
from random import Random

import msgspec

from jepsen_like.ground.disk_file import Content, File, Loss, MemoryContent, Node

NAME_BYTES_MAX = 255
FILES_MAX = 10_000
ROOT = 1


class Attributes(msgspec.Struct, frozen=True):
    """What `stat` shows of a file or directory.

    Attributes:
        number: Its inode.
        mode: Type and permission bits.
        size: In bytes.
        links: 1 for a file.
        uid, gid: Its owner.
        modified_ns: Time of the last change, as given by the caller.
    """

    number: int
    mode: int
    size: int
    links: int
    uid: int
    gid: int
    modified_ns: int


class _Directory(Node):
    """Names as they are, as they are durable, and the changes between, oldest first."""

    def __init__(self, number: int, mode: int, now_ns: int) -> None:
        super().__init__(number, stat.S_IFDIR | mode, now_ns)
        self.names: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.changes: list[dict[str, int | None]] = []

    def change(self, change: dict[str, int | None], now_ns: int) -> None:
        _apply(self.names, change)
        self.changes.append(change)
        self.modified_ns = now_ns

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.changes = []

    def lose_power(self, rng: Random) -> int:
        """Keeps the first so many changes; gives how many are undone."""
        kept = rng.randint(0, len(self.changes))
        undone = len(self.changes) - kept
        for change in self.changes[:kept]:
            _apply(self.durable, change)
        self.names = dict(self.durable)
        self.changes = []
        return undone

    def all_numbers(self) -> set[int]:
        """Inodes that a name leads to, now or after a power loss."""
        found = {*self.names.values(), *self.durable.values()}
        for change in self.changes:
            found.update(number for number in change.values() if number is not None)
        return found


def _apply(names: dict[str, int], change: dict[str, int | None]) -> None:
    for name, number in change.items():
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


class DiskModel:
    """A small file system. Operations raise OSError as the system calls would.

    Args:
        new_content: Makes the (empty) content of the inode with this number.
        now_ns: For the times that `stat` shows.
    """

    def __init__(
        self,
        new_content: Callable[[int], Content] = lambda _number: MemoryContent(),
        now_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self._new_content = new_content
        self._now_ns = now_ns
        root = _Directory(ROOT, 0o755, now_ns())
        self._nodes: dict[int, File | _Directory] = {ROOT: root}
        self._next = ROOT + 1
        self._open: dict[int, int] = {}

    # Names.

    def find(self, path: str) -> int:
        """The inode of an absolute path.

        Raises:
            FileNotFoundError, NotADirectoryError: It leads nowhere.
        """
        number = ROOT
        for name in path.strip("/").split("/") if path.strip("/") else ():
            found = self._directory(number).names.get(name)
            if found is None:
                raise _error(errno.ENOENT, path)
            number = found
        return number

    def list(self, number: int) -> dict[str, int]:
        """Names in a directory with their inodes."""
        return dict(sorted(self._directory(number).names.items()))

    def attributes(self, number: int) -> Attributes:
        """What `stat` shows."""
        node = self._node(number)
        return Attributes(
            number=number,
            mode=node.mode,
            size=node.content.size if isinstance(node, File) else 0,
            links=1 if isinstance(node, File) else 2,
            uid=node.uid,
            gid=node.gid,
            modified_ns=node.modified_ns,
        )

    def create(self, path: str, mode: int = 0o600) -> int:
        """A new empty file; its name is durable once the directory is synced."""
        parent, name = self._free_name(path)
        number = self._take_number()
        content = self._new_content(number)
        self._nodes[number] = File(number, stat.S_IMODE(mode), self._now_ns(), content)
        parent.change({name: number}, self._now_ns())
        return number

    def make_directory(self, path: str, mode: int = 0o700) -> int:
        """A new empty directory; durable once the one above is synced."""
        parent, name = self._free_name(path)
        number = self._take_number()
        self._nodes[number] = _Directory(number, stat.S_IMODE(mode), self._now_ns())
        parent.change({name: number}, self._now_ns())
        return number

    def unlink(self, path: str) -> None:
        """Removes the name of a file."""
        parent, name, number = self._named(path)
        if isinstance(self._nodes[number], _Directory):
            raise _error(errno.EISDIR, path)
        parent.change({name: None}, self._now_ns())

    def remove_directory(self, path: str) -> None:
        """Removes an empty directory."""
        parent, name, number = self._named(path)
        if self._directory(number).names:
            raise _error(errno.ENOTEMPTY, path)
        parent.change({name: None}, self._now_ns())

    def rename(self, source: str, target: str) -> None:
        """Renames a file inside its directory, in the place of one that is there.

        Raises:
            OSError: EXDEV into another directory; EISDIR, EEXIST for directories.
        """
        parent, name, number = self._named(source)
        target_parent, target_name = self._place(target)
        if target_parent is not parent:
            raise _error(errno.EXDEV, target)
        if target_name == name:
            return
        there = parent.names.get(target_name)
        if there is not None and isinstance(self._nodes[there], _Directory):
            raise _error(errno.EISDIR, target)
        parent.change({name: None, target_name: number}, self._now_ns())

    def sync_directory(self, number: int) -> None:
        """Makes the names in it durable."""
        self._directory(number).sync()
        self._forget_unreachable()

    # Files.

    def opened(self, number: int) -> None:
        """An open file outlives its name."""
        self._open[number] = self._open.get(number, 0) + 1

    def closed(self, number: int) -> None:
        """The reverse of `opened`; makes nothing durable."""
        left = self._open.get(number, 0) - 1
        if left > 0:
            self._open[number] = left
            return
        self._open.pop(number, None)
        self._forget_unreachable()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """What was written, durable or not."""
        return self._file(number).content.read(offset, size)

    def write(self, number: int, offset: int, data: bytes) -> None:
        """Overwrites and extends, not durably."""
        if data:
            file = self._file(number)
            file.write(offset, bytes(data))
            file.modified_ns = self._now_ns()

    def resize(self, number: int, size: int) -> None:
        """Cuts or extends with zeros, not durably."""
        file = self._file(number)
        if size != file.content.size:
            file.resize(size)
            file.modified_ns = self._now_ns()

    def sync(self, number: int) -> None:
        """Makes bytes and size of a file durable; not its name."""
        self._file(number).sync()

    def fail_sync(self, number: int) -> None:
        """A sync that reports an error: see the module."""
        self._file(number).fail_sync()

    def sync_all(self) -> None:
        """Makes everything durable, as sync(2) does."""
        for _, node in self._sorted():
            node.sync()
        self._forget_unreachable()

    def set_mode(self, number: int, mode: int) -> None:
        """Permission bits."""
        node = self._node(number)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)

    def set_owner(self, number: int, uid: int, gid: int) -> None:
        """The owner; -1 keeps."""
        node = self._node(number)
        node.uid = node.uid if uid < 0 else uid
        node.gid = node.gid if gid < 0 else gid

    def set_modified(self, number: int, modified_ns: int) -> None:
        """The time of the last change."""
        self._node(number).modified_ns = modified_ns

    # Faults.

    def lose_power(self, rng: Random, *, torn: bool) -> Loss:
        """Everything that is not durable is lost, wholly or in part; all files count as closed."""
        names = sum(
            node.lose_power(rng) for _, node in self._sorted() if isinstance(node, _Directory)
        )
        self._open.clear()
        self._forget_unreachable()
        writes = lost = 0
        for _, node in self._sorted():
            if isinstance(node, File):
                loss = node.lose_power(rng, torn=torn)
                writes, lost = writes + loss.writes, lost + loss.bytes
        return Loss(writes=writes, bytes=lost, names=names)

    def durable_files(self) -> Iterator[tuple[str, int, int]]:
        """Files with a durable part: path, inode, bytes from the start that are surely durable."""
        for path, number in self._walk("", ROOT):
            node = self._nodes[number]
            if isinstance(node, File) and (size := node.durable_bytes()):
                yield path, number, size

    def flip(self, number: int, offset: int, bit: int) -> tuple[int, int]:
        """Rot: turns one bit of a durable byte over; gives the byte before and after.

        Raises:
            ValueError: The byte is not durable.
        """
        file = self._file(number)
        if not 0 <= offset < file.durable_bytes() or not 0 <= bit < 8:
            raise ValueError(f"no durable byte at {offset} of inode {number}, or no bit {bit}")
        (old,) = file.content.read(offset, 1)
        new = old ^ (1 << bit)
        file.content.write(offset, bytes([new]))
        return old, new

    # Inside.

    def _sorted(self) -> Iterator[tuple[int, File | _Directory]]:
        return iter(sorted(self._nodes.items(), key=operator.itemgetter(0)))

    def _walk(self, above: str, number: int) -> Iterator[tuple[str, int]]:
        for name, child in self.list(number).items():
            path = f"{above}/{name}"
            yield path, child
            if isinstance(self._nodes[child], _Directory):
                yield from self._walk(path, child)

    def _node(self, number: int) -> File | _Directory:
        node = self._nodes.get(number)
        if node is None:
            raise _error(errno.ESTALE, f"inode {number}")
        return node

    def _file(self, number: int) -> File:
        node = self._node(number)
        if isinstance(node, _Directory):
            raise _error(errno.EISDIR, f"inode {number}")
        return node

    def _directory(self, number: int) -> _Directory:
        node = self._node(number)
        if isinstance(node, File):
            raise _error(errno.ENOTDIR, f"inode {number}")
        return node

    def _take_number(self) -> int:
        if len(self._nodes) >= FILES_MAX:
            raise _error(errno.ENOSPC, f"{FILES_MAX} files")
        self._next += 1
        return self._next - 1

    def _place(self, path: str) -> tuple[_Directory, str]:
        above, _, name = path.rstrip("/").rpartition("/")
        if len(os.fsencode(name)) > NAME_BYTES_MAX:
            raise _error(errno.ENAMETOOLONG, path)
        return self._directory(self.find(above)), name

    def _free_name(self, path: str) -> tuple[_Directory, str]:
        parent, name = self._place(path)
        if not name or name in parent.names:
            raise _error(errno.EEXIST, path)
        return parent, name

    def _named(self, path: str) -> tuple[_Directory, str, int]:
        parent, name = self._place(path)
        number = parent.names.get(name)
        if number is None:
            raise _error(errno.ENOENT, path)
        return parent, name, number

    def _forget_unreachable(self) -> None:
        """Gives back what no name and no open file can lead to any more."""
        reached, waiting = set(self._open), [ROOT]
        while waiting:
            number = waiting.pop()
            reached.add(number)
            node = self._nodes[number]
            if isinstance(node, _Directory):
                waiting.extend(node.all_numbers() - reached)
        for number in [one for one in self._nodes if one not in reached]:
            gone = self._nodes.pop(number)
            if isinstance(gone, File):
                gone.content.remove()


def _error(code: int, what: str) -> OSError:
    return OSError(code, os.strerror(code), what)
