"""What a build fetches from elsewhere, into its own staging directory: each thing once, and gone with the build.

HTTP's client and git are loaded where they are used: most builds fetch nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.build.tree import DIRECTORY_FLAGS, open_real, real_path
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.sources.git import Commit
    from minidock.build.sources.http import Fetched
    from minidock.build.sources.remote import GitSource, HttpSource
    from minidock.store.staging import Staging

# What BuildKit calls a file whose URL has no name for it.
UNNAMED = "__unnamed__"


class Fetcher:
    """Fetches for one build. ``tell`` gets lines for people."""

    __slots__ = ("_commits", "_files", "_staging", "_trees")

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._files: dict[HttpSource, Fetched] = {}
        self._commits: dict[GitSource, Commit] = {}
        self._trees: dict[tuple[GitSource, bool], str] = {}

    def file(self, source: HttpSource, tell: Callable[[bytes], None]) -> Fetched:
        """The file behind an URL, alone in its directory and called as the URL calls it. It is not to be changed.

        Raises MinidockError, OSError.
        """
        if source not in self._files:
            from minidock.build.sources.http import fetch
            from minidock.build.sources.http_cache import HttpCache

            path = f"{self._directory('http')}/{source.name or UNNAMED}"
            self._files[source] = fetch(source, path, cache=HttpCache(self._staging.root), tell=tell)
        return self._files[source]

    def commit(self, source: GitSource, tell: Callable[[bytes], None]) -> Commit:
        """The commit that ``source`` means now, and for the rest of the build. Raises MinidockError."""
        if source not in self._commits:
            from minidock.build.sources.git import find_commit

            self._commits[source] = find_commit(source, home=self._directory("git"), tell=tell)
        return self._commits[source]

    def tree(self, source: GitSource, tell: Callable[[bytes], None], *, keep: bool) -> int:
        """The tree of that commit, or its ``subdir``, as a directory descriptor that the caller closes; with ``keep``
        its ``.git`` too. It is not to be changed. Raises MinidockError, OSError."""
        whole = source._replace(subdir="")
        if (whole, keep) not in self._trees:
            from minidock.build.sources.git import check_out

            commit = self.commit(source, tell)
            home = self._directory("git")
            check_out(source, commit, f"{home}/tree", home=home, keep=keep, tell=tell)
            self._trees[whole, keep] = f"{home}/tree"
        top = os.open(self._trees[whole, keep], DIRECTORY_FLAGS)
        try:
            return open_real(top, real_path(top, source.subdir), DIRECTORY_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            raise MinidockError(f"the git repository {source.shown} has no directory {source.subdir!r}") from None
        finally:
            os.close(top)

    def directory(self) -> str:
        """A new directory, 0755, for what a context's archive holds."""
        path = f"{self._directory('context')}/tree"
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
        return path

    def _directory(self, what: str) -> str:
        path = f"{self._staging.path}/{what}-{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        return path
