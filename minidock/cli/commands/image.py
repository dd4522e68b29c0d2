"""``minidock image``: images under their management names, and the making of base images."""

from __future__ import annotations

from minidock.cli.declare import Group

GROUP = Group(
    "image",
    "Manage images.",
    {
        "bootstrap": "image_bootstrap",
        "build": "build",
        "history": "history",
        "import": "import_",
        "inspect": "image_inspect",
        "list": "images",
        "pull": "pull",
        "push": "push",
        "ls": "images",
        "remove": "rmi",
        "rm": "rmi",
        "tag": "tag",
        "verify": "image_verify",
    },
)
