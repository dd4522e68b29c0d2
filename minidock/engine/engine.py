"""The engine: every verb of the product as a method, for Python programs and for the command line alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.engine.image_verbs import ImageVerbs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO, Unpack

    from minidock.build.checks import Report
    from minidock.engine.findings import CheckResult, Verdict
    from minidock.engine.images import HistoryLine
    from minidock.engine.listings import ContainerSummary, ExplainedStep, LogPiece, Pruned
    from minidock.engine.options import BuildOptions, CreateOptions
    from minidock.engine.results import ExecResult, RunResult
    from minidock.store.images import Image
    from minidock.store.removal import Removal
    from minidock.volumes.volumes import Volume


class Engine(ImageVerbs):
    """One data root and what can be done with it.

    ``root`` is the data root's folder and ``driver`` the storage driver's name; where they are not given, the
    configuration decides. With ``debug`` every step is printed on standard error as it happens. Without ``may_fork``
    the process is never forked: verbs that make processes run in a launcher of their own. The caller's signals,
    directory, umask and namespaces are never changed.

    Containers are named by full ID, name, or unique prefix of an ID; images by name, ID or prefix. Every method raises
    a ``MinidockError`` for what cannot be done; see ``minidock.errors``.
    """

    __slots__ = ()

    # Containers

    def create(self, image: str, *command: str, **options: Unpack[CreateOptions]) -> str:
        """Make a container, ready for ``start``; return its ID.

        The options, each of which may be left out, are those of ``minidock.engine.options.CreateOptions``; they mean
        what the flags of ``minidock run`` mean. Raises TypeError for any other, UsageError and MountSpecError before
        anything is done, NoSuchVolumeError, NoSuchImageError, ConflictError.
        """
        from minidock.engine import containers, settings

        settings.check_options("create", options)
        return containers.create(self, image, command, options).id

    def run(
        self,
        image: str,
        *command: str,
        detach: bool = False,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        **options: Unpack[CreateOptions],
    ) -> RunResult:
        """Make a container, start it, and wait for its end (or not, with ``detach``).

        The options are those of ``create``. ``stdin`` is a descriptor to read from, passed on where the option
        ``interactive`` is set; ``stdout`` and ``stderr`` are descriptors to write to, and what has none is captured in
        the result. Raises what ``create`` raises, and ContainerStartError (127: the command was not found, 126: it
        cannot be executed).
        """
        from minidock.engine import settings

        settings.check_options("run", options)
        if not self.may_fork:
            from minidock.engine import detached

            return detached.run(self, image, command, options, detach=detach, stdio=(stdin, stdout, stderr))
        from minidock.engine import containers

        return containers.run(self, image, command, options, detach=detach, stdio=(stdin, stdout, stderr))

    def start(
        self,
        container: str,
        *,
        attach: bool = False,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> int:
        """Start a container that was created or has exited; one that runs is left alone.

        With ``attach`` wait for its end, its output going to ``stdout`` and ``stderr``, and return its exit code; else
        return 0. Raises NoSuchContainerError, ContainerStartError.
        """
        if not self.may_fork:
            from minidock.engine import detached

            return detached.start(self, container, attach=attach, stdio=(stdin, stdout, stderr))
        from minidock.engine import containers

        return containers.start(self, container, attach=attach, stdio=(stdin, stdout, stderr))

    def stop(self, container: str, *, signal: str = "", timeout: int | None = None) -> None:
        """Ask a container to stop and kill it after ``timeout`` seconds (-1: never; None: the container's own).

        One that does not run is left alone. Raises NoSuchContainerError.
        """
        from minidock.engine import containers

        containers.stop(self, container, signal=signal, timeout=timeout)

    def kill(self, container: str, *, signal: str = "KILL") -> None:
        """Send a signal to a container's main process. Raises ConflictError where it does not run."""
        from minidock.engine import containers

        containers.kill(self, container, signal=signal)

    def pause(self, container: str) -> None:
        """Freeze a running container's processes. Raises ConflictError where it does not run or is paused."""
        from minidock.engine import containers

        containers.pause(self, container)

    def unpause(self, container: str) -> None:
        """Let a paused container go on. Raises ConflictError where it is not paused."""
        from minidock.engine import containers

        containers.unpause(self, container)

    def wait(self, container: str) -> int:
        """Wait until a container does not run; return its exit code. Raises NoSuchContainerError."""
        from minidock.engine import containers

        return containers.wait(self, container)

    def rm(self, container: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, with ``volumes`` its anonymous volumes too; with ``force`` kill it first if it runs.

        Raises ConflictError for a running one, NoSuchContainerError.
        """
        from minidock.engine import containers

        containers.remove(self, container, force=force, volumes=volumes)

    def exec(
        self,
        container: str,
        *command: str,
        detach: bool = False,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        tty: bool = False,
        env: Mapping[str, str] | Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        privileged: bool = False,
    ) -> ExecResult:
        """Run a further command in a running container and wait for its end (or not, with ``detach``).

        Descriptors are as for ``run``. Raises ConflictError where the container does not run, ContainerStartError.
        """
        options = {"tty": tty, "env": env, "user": user, "workdir": workdir, "privileged": privileged}
        if not self.may_fork:
            from minidock.engine import detached

            return detached.execute(self, container, command, options, detach=detach, stdio=(stdin, stdout, stderr))
        from minidock.engine import execute

        return execute.execute(self, container, command, options, detach=detach, stdio=(stdin, stdout, stderr))

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int = -1,
        since: int = 0,
        until: int = 0,
        timestamps: bool = False,
    ) -> Iterator[LogPiece]:
        """A container's output, piece by piece in the order in which it came.

        ``tail`` is a number of lines from the end, -1 for all; ``since`` and ``until`` are nanoseconds since the epoch,
        0 for no bound; ``follow`` goes on until the container exits; ``timestamps`` gives whole lines, each with its
        time in front. Raises NoSuchContainerError.
        """
        from minidock.engine import listing

        return listing.logs(self, container, follow=follow, tail=tail, since=since, until=until, timestamps=timestamps)

    def ps(self, *, all: bool = False) -> list[ContainerSummary]:  # noqa: A002 - the command's word
        """The running containers, with ``all`` every container; the latest created first."""
        from minidock.engine import listing

        return listing.summaries(self, all=all)

    def inspect(self, container: str) -> dict[str, Any]:
        """All that is known of a container, in the shape of docker's inspect. Raises NoSuchContainerError."""
        from minidock.engine import inspection

        return inspection.inspect(self, container)

    def explain(self, image: str, *command: str, **options: Unpack[CreateOptions]) -> list[ExplainedStep]:
        """The steps that ``run`` with these options would take, with nothing done.

        ID, PID and addresses are placeholders. Raises what ``create`` raises.
        """
        from minidock.engine import explain, settings

        settings.check_options("explain", options)
        return explain.explain(self, image, command, options)

    # Images

    def build(
        self,
        context: str,
        *,
        text: str | None = None,
        dockerfile: str = "",
        tags: Sequence[str] = (),
        build_args: Mapping[str, str] | Sequence[str] = (),
        labels: Mapping[str, str] | Sequence[str] = (),
        target: str = "",
        no_cache: bool = False,
        network: str = "bridge",
        ulimits: Sequence[str] = (),
        progress: int | None = None,
        quiet: bool = False,
        progress_form: str = "plain",
        **run: Unpack[BuildOptions],
    ) -> str:
        """Build an image from a context: a directory, ``-`` for standard input, or an URL; return its ID.

        The Dockerfile is the path ``dockerfile``, or ``text``, or the context's own. ``target`` is a stage; ``network``
        is what RUN has, "bridge", "none" or "host"; ``ulimits`` and ``run`` are as ``build``'s flags; ``progress`` is a
        descriptor to tell the steps on, with ``quiet`` only warnings and the output of a step that fails, else in the
        form "plain", "rawjson" or "events" (``minidock.model.events``). Raises DockerfileError and BuildError with
        their place.
        """
        if run:
            from minidock.engine.options import check_build_options

            check_build_options(run)
        options: dict[str, Any] = {
            "text": text,
            "dockerfile": dockerfile,
            "tags": tags,
            "build_args": build_args,
            "labels": labels,
            "target": target,
            "no_cache": no_cache,
            "network": network,
            "ulimits": ulimits,
            "quiet": quiet,
            "progress_form": progress_form,
            **run,
        }
        if not self.may_fork:
            from minidock.engine import detached

            return detached.build(self, context, options, progress=progress)
        from minidock.engine import building

        return building.build(self, context, progress=progress, **options)

    def lint(self, context: str, **options: Any) -> Report:
        """What the checks find in a Dockerfile, with nothing built. Options: ``text``, ``dockerfile``, ``build_args``,
        ``contexts``, ``ignorefile``, ``platform``, ``target`` (without it all stages). Raises DockerfileError."""
        from minidock.engine import linting

        return linting.lint(self, context, **options)

    def images(self, *, all: bool = False) -> Sequence[Image]:  # noqa: A002 - docker's word
        """Every image once, the latest stored first; a damaged one says in ``error`` what is wrong. With ``all`` also
        what failed steps of builds have left."""
        from minidock.engine import images

        return images.list_images(self, all=all)

    def image_inspect(self, name: str) -> dict[str, Any]:
        """All that is known of an image, in the shape of docker's inspect. Raises NoSuchImageError."""
        from minidock.engine import images

        return images.inspect(self, name)

    def history(self, name: str) -> Sequence[HistoryLine]:
        """The steps that made an image, the latest first. Raises NoSuchImageError."""
        from minidock.engine import images

        return images.history(self, name)

    def tag(self, source: str, target: str) -> str:
        """Give an image a further name; return the full reference. Raises NoSuchImageError, InvalidReferenceError."""
        from minidock.engine import images

        return images.tag(self, source, target)

    def rmi(self, name: str, *, force: bool = False) -> Sequence[Removal]:
        """Remove an image's name, and with the last one, or by ID, the image and what nothing else needs.

        Returns what was untagged and deleted, line by line. Raises NoSuchImageError, and ConflictError where a
        container uses it or an ID has several names, unless ``force``.
        """
        from minidock.engine import images

        return images.remove(self, name, force=force)

    def import_image(self, tar: str | BinaryIO, *, name: str = "", message: str = "") -> Image:
        """Make an image of one layer from a root file system's tarball: a path, ``-`` (standard input), or a file.

        Raises ArchiveError, InvalidReferenceError, HostError.
        """
        from minidock.engine import images

        return images.import_tar(self, tar, name=name, message=message)

    def bootstrap(self, image: str, *, name: str = "", force: bool = False, quiet: bool = False) -> Image:
        """Make a base image from what the host has: ``busybox``, or ``debian[:SUITE]`` with the host's apt sources.

        ``name`` is the image's name, ``image`` itself where it is empty. Raises HostError for what the host lacks.
        """
        from minidock.engine import bootstrap

        return bootstrap.bootstrap(self, image, name=name, force=force, quiet=quiet)

    def verify(self, *names: str) -> Sequence[Verdict]:
        """Whether images, all when none is named, are whole: manifest, configuration and layers by their digests, and
        what layers are mounted from by their tarballs. Raises NoSuchImageError before anything is read."""
        from minidock.engine import checks

        return checks.verify(self, names)

    # Volumes

    def volume_create(self, name: str = "", *, labels: Mapping[str, str] | Sequence[str] = ()) -> Volume:
        """Make a volume, or return the one of that name; without a name it gets 64 random hexadecimal digits."""
        from minidock.engine import volumes

        return volumes.create(self, name, labels=labels)

    def volumes(self, *, dangling: bool | None = None) -> Sequence[Volume]:
        """All volumes by name; ``dangling`` True: those that no container refers to, False: the others."""
        from minidock.engine import volumes

        return volumes.volumes(self, dangling=dangling)

    def volume_inspect(self, name: str) -> dict[str, Any]:
        """All that is known of a volume, in the shape of docker's inspect. Raises NoSuchVolumeError."""
        from minidock.engine import volumes

        return volumes.inspect(self, name)

    def volume_rm(self, name: str, *, force: bool = False) -> None:
        """Remove a volume. Raises ConflictError while any container refers to it, and NoSuchVolumeError unless
        ``force``."""
        from minidock.engine import volumes

        volumes.remove(self, name, force=force)

    def volume_prune(self, *, all: bool = False) -> Pruned:  # noqa: A002 - the command's word
        """Remove the anonymous volumes, with ``all`` the named ones too, that no container refers to."""
        from minidock.engine import volumes

        return volumes.prune(self, all=all)

    # The engine itself

    def info(self) -> dict[str, Any]:
        """Storage driver, numbers of containers and images, and the host, under the names of docker's ``info``."""
        from minidock.engine import info

        return info.info(self)

    def version(self) -> dict[str, str]:
        """The versions of minidock and of what it stands on, under the names that ``version`` prints."""
        from minidock.engine import versions

        return versions.versions()

    def check(self, *, repair: bool = False) -> CheckResult:
        """Look at everything in the data root and tell what is damaged. With ``repair``, remove what is damaged and can
        be made again, and what nobody can use; never an image or a container's data."""
        from minidock.engine import checks

        return checks.check(self, repair=repair)

    def teardown(self) -> None:
        """Take off the host what minidock has set up in the kernel: bridge, firewall rules, cgroups; the next start
        makes them again. Raises ConflictError while a container runs."""
        from minidock.engine import teardown

        teardown.teardown(self)
