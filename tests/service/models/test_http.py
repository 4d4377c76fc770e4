"""aiohttp as our modules import it: certificates are read when a connection is first to be secured, and then they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# a self-signed certificate whose key nobody has
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBhTCCASugAwIBAgIULak8pMn0khqMvNeDLShKqSuhNQYwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMdHVybm91dCB0ZXN0MCAXDTI2MTEyMTE2MjgyMVoYDzIxMjYx
MDI4MTYyODIxWjAXMRUwEwYDVQQDDAx0dXJub3V0IHRlc3QwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAARaRsy5N4crXgzAqhLAvdF06H1qKRSWJCNNhVVkVr+5Ee9e
GHh6fEdF9HtOHtvQjquFslJ989U+buE97DKvOOWZo1MwUTAdBgNVHQ4EFgQUi6AE
K1zgg6dWbkeGtJGqeeVRCmowHwYDVR0jBBgwFoAUi6AEK1zgg6dWbkeGtJGqeeVR
CmowDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiA7mssOXCzSsYuJ
pZxceuBIXVb6z8trVXXKok1xrv8eswIhAM5KIhWgo1BaSL/idtpqVWaTM6vBMk6t
3STsDRqAWA/b
-----END CERTIFICATE-----
"""
LOOK = """
import ssl
from service.models.http import aiohttp
from aiohttp import connector

def trusted(context):
    return context.cert_store_stats()["x509"]

for context in (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED):
    before = trusted(context)
    for _ in range(2):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.org")
    print(before, trusted(context), context.verify_mode.name, context.check_hostname)
print(trusted(ssl.create_default_context()))
"""


def test_certificates_are_read_when_a_connection_is_first_secured(tmp_path: Path) -> None:
    file = tmp_path / "trusted.pem"
    file.write_text(CERTIFICATE)
    environment = {**os.environ, "SSL_CERT_FILE": str(file), "SSL_CERT_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0 1 CERT_REQUIRED True", "0 1 CERT_NONE False", "1"]
