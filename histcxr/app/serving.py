"""The app's server: on this machine alone, under an address that nobody can guess, and silent towards everybody else.

Streamlit's own defaults would count the users, keep an identifier in the home folder, and offer links that lead
elsewhere; its settings files may say anything. So every setting that matters is made here and read back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from histcxr.exceptions import HistcxrError, InputError, MissingDependencyError, how_to_install
from histcxr.reports.page import require_page

HOST: Final = "127.0.0.1"

#: Where pages find their settings: the folder for what they write, and the model that they begin with.
FOLDER, MODEL = "HISTCXR_APP_FOLDER", "HISTCXR_APP_MODEL"

_SETTINGS: Final[dict[str, Any]] = {
    "browser.gatherUsageStats": False,
    "client.allowedOrigins": [],
    "client.disableDataExport": True,  # its CSV does not guard against formulas, ours does
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "global.developmentMode": False,
    "runner.magicEnabled": False,
    "server.address": HOST,
    "server.enableCORS": True,
    "server.enableStaticServing": False,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.showEmailPrompt": False,
}
# The browser itself refuses what is not ours: whatever a page says, it reaches no other machine.
_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; "
        b"form-action 'none'; base-uri 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),  # the address is the key
    (b"x-content-type-options", b"nosniff"),
)


class _Guarded:
    """What every answer says to the browser."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in _HEADERS}
                kept = [pair for pair in message["headers"] if pair[0].lower() not in own]
                message["headers"] = [*kept, *_HEADERS]
            await send(message)

        await self._app(scope, receive, guarded)


def serve(
    *, port: int, max_upload: int, model: str | None, keep: str | None, say: Callable[[str], None]
) -> None:
    """Serve the app until a signal ends it, which becomes a KeyboardInterrupt.

    ``port``: 0 for any that is free; ``max_upload``: MB of one file; ``model``: what the triage begins with;
    ``keep``: the folder that keeps what the pages write, by default a temporary one that is removed at the end;
    ``say``: told the address. InputError: the port is taken; MissingDependencyError: no Streamlit.
    """
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(_bound(port))
        own = tempfile.TemporaryDirectory(prefix="histcxr-app-", ignore_cleanup_errors=True)
        folder = stack.enter_context(own)
        key = secrets.token_urlsafe(16)
        settings = {
            **_SETTINGS,
            "server.baseUrlPath": key,
            "server.maxUploadSize": max_upload,
            "server.port": bound.getsockname()[1],
        }
        os.environ |= {FOLDER: os.path.abspath(keep or folder), MODEL: model or "boxed"}
        for name in ("MPLCONFIGDIR", "KERAS_HOME"):  # else they write into the home folder
            os.environ.setdefault(name, os.path.join(folder, name))
        require_page()
        for name in ("SIGTERM", "SIGHUP"):  # so that the temporary folder goes, too
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: signal.raise_signal(signal.SIGINT))
        server = _server(settings)
        say(f"The app is at http://{HOST}:{settings['server.port']}/{key}/ (Ctrl-C ends it)")
        say(
            f"What it writes is kept in {os.environ[FOLDER]}."
            if keep
            else "Nothing is kept; --keep FOLDER would."
        )
        say("Research software, not a medical device. This address lets in everybody who has it.")
        server.run(sockets=[bound])
    raise KeyboardInterrupt  # the server ends for a signal alone


def _server(settings: dict[str, Any]) -> Any:
    try:
        import streamlit
        import uvicorn
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from streamlit.web.bootstrap import load_config_options
    except ImportError as error:
        raise MissingDependencyError(
            f"Streamlit is needed for the app and cannot be imported ({error}); install it with: "
            f"{how_to_install('app')}",
            name=error.name,
        ) from error
    load_config_options(settings)
    if lost := [name for name, value in settings.items() if streamlit.get_option(name) != value]:
        raise HistcxrError(f"this version of Streamlit does not take the settings {', '.join(lost)}")
    # Another host's name that leads here is a trick of some page (DNS rebinding).
    known = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    app = streamlit.App(Path(__file__).with_name("main.py"), middleware=[known, Middleware(_Guarded)])
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    return uvicorn.Server(config)


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"port must be free on {HOST}, got {port}: {error.strerror}; choose another (--port 0 takes any)"
        ) from error
    return bound
