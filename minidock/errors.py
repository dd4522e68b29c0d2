"""The one exception tree.

Every class carries the exit status that a command ends with when the error reaches its top, and every error may carry a
hint: what to do next. A message is one lower-case sentence that holds the offending value. Kernel wrappers raise
``OSError``; the layer that knows what was intended turns it into one of these.
"""

from __future__ import annotations


class MinidockError(Exception):
    """Anything minidock refuses or fails to do.

    ``message`` is one lower-case sentence without a full stop; ``hint`` says what to do next, or is empty.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(MinidockError):
    """A flag, an argument or a combination of them that makes no sense."""

    exit_status = 125


class InvalidReferenceError(UsageError):
    """A name, reference, digest or ID that the grammar refuses."""


class MountSpecError(UsageError):
    """A ``-v``, ``--mount`` or ``--tmpfs`` value that the grammar refuses."""


class NotFoundError(MinidockError):
    """An object that was named does not exist."""


class NoSuchContainerError(NotFoundError):
    """No container has that name or ID."""


class NoSuchImageError(NotFoundError):
    """No image has that name or ID."""


class NoSuchVolumeError(NotFoundError):
    """No volume has that name."""


class ConflictError(MinidockError):
    """The object is in use, exists already, or is in a state that forbids the verb."""


class StoreError(MinidockError):
    """The data root is damaged, of a newer format, or cannot be written."""


class CorruptObjectError(StoreError):
    """A blob, record or layer is not what its digest or format says."""


class ArchiveError(MinidockError):
    """A tar stream is malformed or would reach outside its root."""


class DriverError(MinidockError):
    """A storage driver is unknown, or the host cannot run it."""


class HostError(MinidockError):
    """The host lacks a program, a kernel facility or a permission."""


class NetworkError(MinidockError):
    """A bridge, lease, link or firewall rule could not be made."""


class RegistryError(MinidockError):
    """A registry refuses, does not answer, or answers what it must not."""


class DockerfileError(MinidockError):
    """A Dockerfile that cannot be parsed or executed.

    ``filename`` and ``line`` (1-based, 0 when unknown) say where; ``end_line`` is the last line of the instruction;
    ``excerpt`` is the numbered text around it, ready to print, or empty.
    """

    def __init__(
        self, message: str, *, filename: str = "", line: int = 0, end_line: int = 0, excerpt: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.filename = filename
        self.line = line
        self.end_line = end_line or line
        self.excerpt = excerpt


class BuildError(DockerfileError):
    """A build step failed; the location is the step's.

    ``status`` is the exit status of its command, 0 where no command ended with one; ``output`` the last of what that
    wrote, as text; ``kept`` the name under which what was there at the failure can be run (``FAILED:3f2a…``), or empty.
    """

    def __init__(
        self,
        message: str,
        *,
        filename: str = "",
        line: int = 0,
        end_line: int = 0,
        excerpt: str = "",
        hint: str = "",
        status: int = 0,
        output: str = "",
        kept: str = "",
    ) -> None:
        super().__init__(message, filename=filename, line=line, end_line=end_line, excerpt=excerpt, hint=hint)
        self.status = status
        self.output = output
        self.kept = kept


class NotReproducibleError(MinidockError):
    """A build that came out differently when it was done once more."""

    exit_status = 11


class CommandFailedError(MinidockError):
    """The command of a build step ended with ``status``, which is not 0; ``output`` is the last of what it wrote,
    ``stubs`` are the mount points that were made in its root."""

    def __init__(
        self, message: str, *, status: int, output: str = "", stubs: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.output = output
        self.stubs = stubs


class ContainerStartError(MinidockError):
    """The container could not be started: the step, the path and the kernel's answer are in the message."""

    exit_status = 125


class CommandNotExecutableError(ContainerStartError):
    """The container's command exists but cannot be executed (docker's exit status 126)."""

    exit_status = 126


class CommandNotFoundError(ContainerStartError):
    """The container's command does not exist in the image (docker's exit status 127)."""

    exit_status = 127
