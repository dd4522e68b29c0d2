"""``login`` and ``logout``: credentials that a registry takes, kept where docker keeps them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from minidock.engine.pulling import registry_settings
from minidock.errors import RegistryError, UsageError
from minidock.model.reference import DEFAULT_DOMAIN, parse_reference
from minidock.registry.credentials import CredentialFiles, Credentials
from minidock.registry.places import places
from minidock.registry.session import Session

if TYPE_CHECKING:
    from minidock.engine.base import EngineBase


def login(engine: EngineBase, registry: str, user: str, secret: str) -> str:
    """Try credentials and keep them; returns where: a file, or a helper's name.

    Raises RegistryError where the registry does not take them, UsageError for what is no registry.
    """
    domain = registry_domain(registry)
    if not user or not secret:
        raise UsageError(f"no {'password' if user else 'user name'} was given for {domain}")
    credentials = Credentials(user, secret)
    settings = registry_settings(engine)
    session = Session(
        places(domain, settings)[-1],
        "",
        actions="",
        credentials=lambda: credentials,
        certificates=settings.certificates,
        debug=engine.log.debug,
    )
    with session, session.request("GET", "", what=f"log in to {domain}"):
        if not session.authorized:
            raise RegistryError(
                f"{domain} took no credentials, so none are kept",
                hint="it asks for none, or wants them told to a server of another domain: see --debug",
            )
    return CredentialFiles(os.environ).save(domain, credentials)


def logout(registry: str) -> bool:
    """Forget a registry's credentials; whether there were any."""
    return CredentialFiles(os.environ).erase(registry_domain(registry))


def registry_domain(text: str) -> str:
    """The domain of a registry as people write it, docker's own where it is empty. Raises UsageError."""
    host = re.sub(r"\Ahttps?://", "", text).partition("/")[0]
    if not host or host in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_DOMAIN
    try:
        # As the domain of a name: what reads as one there only with a dot or a port is one here in any case.
        return parse_reference(f"{host}/x").domain if "." in host or ":" in host or host == "localhost" else host
    except UsageError:
        raise UsageError(f"{text!r} is no registry", hint="the form is HOST[:PORT]") from None
