"""Keys and roles: who may do what. A key is shown once and kept by its digest alone."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompts.errors import BadInput
from service.errors import Forbidden, NotFound
from service.ids import new_id, now
from service.limits import KeyLimits
from service.settings import Settings
from service.store import keys
from service.store.database import Database, bump_revision

ROLES = ("app", "author", "ci", "admin")  # each may do what those before it may
KEY_FILE = "admin.key"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the id and the role of a key, and what it may take."""

    id: str
    role: str
    limits: KeyLimits | None = None

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    def require(self, role: str, to: str) -> None:
        """Raise Forbidden unless this principal has at least `role`."""
        if not self.may(role):
            raise Forbidden(f"a key of role {self.role!r} may not {to}: it needs role {role!r}")

    def require_own(self, created_by: str, what: str, to: str) -> None:
        """Raise Forbidden for what another has made, unless this is an admin."""
        if created_by != self.id and not self.may("admin"):
            raise Forbidden(f"{what} is another's: only an admin may {to} it")


LOCAL_ADMIN = Principal("local", "admin")


def new_secret(role: str) -> str:
    """A key's text: 256 random bits behind a word that says what it is."""
    return f"turnout_{role}_{secrets.token_urlsafe(32)}"


def create_key(
    database: Database,
    role: str,
    *,
    actor: Principal,
    note: str | None = None,
    key: str | None = None,
    limits: KeyLimits | None = None,
) -> dict[str, Any]:
    """Make a key; the only time that it is shown. Raises BadInput for an unknown role."""
    if role not in ROLES:
        raise BadInput(f"no role {role!r}: choose one of {', '.join(ROLES)}", param="role")
    key = key or new_secret(role)
    limited = (limits or KeyLimits()).as_dict()
    record: dict[str, Any] = {"id": new_id("key"), "role": role, "note": note, "created_at": now(), **limited}
    with database.write() as session:
        keys.add(session, {**record, "digest": digest_key(key)})
        keys.audit(session, at=record["created_at"], actor=actor.id, action="key.create", subject=record["id"],
                   detail={"role": role, **{name: value for name, value in limited.items() if value is not None}})  # fmt: skip
        bump_revision(session)
    return {**record, "key": key}


def limit_key(database: Database, key_id: str, limits: KeyLimits, *, actor: Principal) -> dict[str, Any]:
    """Set what a key may take; it holds at once here, and within a second in every process. Raises NotFound."""
    with database.write() as session:
        if not keys.limit(session, key_id, limits.as_dict()):
            raise NotFound("key", key_id, "`turnout key list` shows those that exist")
        keys.audit(session, at=now(), actor=actor.id, action="key.limit", subject=key_id, detail=limits.as_dict())
        bump_revision(session)
    return {"id": key_id, **limits.as_dict()}


def revoke_key(database: Database, key_id: str, *, actor: Principal) -> None:
    """End a key. Raises NotFound."""
    with database.write() as session:
        if not keys.revoke(session, key_id, now()):
            raise NotFound("key", key_id, "`turnout key list` shows those that exist")
        keys.audit(session, at=now(), actor=actor.id, action="key.revoke", subject=key_id, detail={})
        bump_revision(session)


def digest_key(key: str) -> str:
    """Keys are random, 256 bits: a plain digest is as hard to reverse as they are to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def ensure_admin_key(database: Database, settings: Settings) -> Path | None:
    """On the first start make an admin key, in a file that its owner alone can read; None where keys exist."""
    with database.read() as session:
        if keys.valid(session):
            return None
    path = settings.home / KEY_FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # a database elsewhere has not made it
    key = new_secret("admin")  # the file first: a key that nobody could read would lock everybody out
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    create_key(database, "admin", actor=LOCAL_ADMIN, note="made at the first start", key=key)
    return path


def find_key(settings: Settings, environ: Mapping[str, str]) -> tuple[str, str]:
    """The key that the command line uses and what it is of: TURNOUT_API_KEY, else this home's `KEY_FILE`. Both "" for none."""
    given = environ.get("TURNOUT_API_KEY", "").strip()
    if given and not (given.isascii() and given.isprintable()):
        raise BadInput("TURNOUT_API_KEY holds characters that no key has: set it to the key alone")
    if given:
        return given, "TURNOUT_API_KEY"
    path = settings.home / KEY_FILE
    try:
        kept = path.read_text().strip()
    except OSError:
        kept = ""
    return (kept, str(path)) if kept else ("", "")
