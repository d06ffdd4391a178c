"""A visitor of the app without a browser: speaks Streamlit's protocol, and keeps every byte that the app sends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from histcxr.exceptions import HistcxrError

_MEDIA = re.compile(rb"/media/[\w.-]+")


@contextlib.contextmanager
def app(log: Path, *options: object, before: Sequence[object] = ()) -> Iterator[str]:
    """Run the app, and yield its address; all that it says stands in ``log`` at last.

    ``before`` is put in front of the command, such as a tracer. HistcxrError: it does not begin, or not end well.
    """
    command = [*before, sys.executable, "-m", "histcxr", "app", "--port", "0", *options]
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", log.read_text())):
            if process.poll() is not None:
                raise HistcxrError(f"the app must begin, got status {process.returncode}: {log.read_text()}")
            time.sleep(0.05)
        yield found[0]
        os.killpg(process.pid, signal.SIGINT)
        if (code := process.wait(60)) != 130:
            raise HistcxrError(f"the app must end by Ctrl-C, got status {code}: {log.read_text()[-500:]}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Visitor:
    """Opens the app at ``url``, fills in pages and presses buttons; ``received`` is all that was answered.

    Pictures and downloads are fetched as a browser does. ImportError: Streamlit or websockets is missing.
    """

    def __init__(self, url: str, patience: float = 600) -> None:
        from websockets.sync.client import connect

        self._url, self._patience = url, patience
        self._cookie = ""
        self.received: list[bytes] = []
        self._media: set[bytes] = set()
        for attempt in range(100):
            try:
                self._get(url)
                break
            except urllib.error.URLError:  # it says its address before it listens
                if attempt == 99:
                    raise
                time.sleep(0.1)
        self._get(f"{url}_stcore/health")  # brings the cookie that uploads need
        place = f"{url.replace('http', 'ws', 1)}_stcore/stream"
        self._socket = connect(place, max_size=None, proxy=None)
        self._socket.__enter__()

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def do(
        self,
        page: str,
        fields: Mapping[str, str | Sequence[str]],
        button: str,
        files: Sequence[tuple[str, bytes]] = (),
    ) -> list[str]:
        """Open a page (``""`` is the first), fill in fields by how their labels begin, drop files, press a button.

        A field of several choices takes a sequence. Returns all texts that it shows at last.
        """
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates

        shown = self._run(page, WidgetStates())

        def widget(kind: str, label: str) -> str:
            return next(str(one.id) for name, one in shown if name == kind and one.label.startswith(label))

        states = []
        for label, value in fields.items():
            if isinstance(value, str):
                states.append(WidgetState(id=widget("text_input", label), string_value=value))
            else:
                states.append(WidgetState(id=widget("multiselect", label)))
                states[-1].string_array_value.data.extend(value)
        if files:
            asked = BackMsg()
            asked.file_urls_request.request_id = "1"
            asked.file_urls_request.file_names.extend(name for name, _ in files)
            asked.file_urls_request.session_id = self._session
            self._socket.send(asked.SerializeToString())
            places = next(one for one in iter(self._next, None) if one.HasField("file_urls_response"))
            state = WidgetState(id=widget("file_uploader", ""))
            for (name, content), urls in zip(files, places.file_urls_response.file_urls, strict=True):
                self._upload(urls.upload_url, name, content)
                state.file_uploader_state_value.uploaded_file_info.add(
                    name=name, size=len(content), file_id=urls.file_id, file_urls=urls
                )
            states.append(state)
        states.append(WidgetState(id=widget("button", button), trigger_value=True))
        shown = self._run(page, WidgetStates(widgets=states))
        return [str(one.body) for name, one in shown if name in ("text", "markdown", "heading", "alert")]

    def _run(self, page: str, states: Any) -> list[tuple[str, Any]]:
        """Let the page's script run; return kind and content of all that it shows, what was replaced included."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        asked = BackMsg()
        asked.rerun_script.page_name = page
        asked.rerun_script.widget_states.CopyFrom(states)
        self._socket.send(asked.SerializeToString())
        shown = []
        while True:
            message = self._next()
            if message.HasField("new_session"):
                self._session = message.new_session.initialize.session_id
            elif message.HasField("delta") and message.delta.HasField("new_element"):
                element = message.delta.new_element
                kind = element.WhichOneof("type")
                shown.append((kind, getattr(element, kind)))
            elif message.HasField("script_finished"):
                break
        for place in sorted(self._media):
            self._get(self._url.rstrip("/") + place.decode())
        self._media.clear()
        return shown

    def _next(self) -> Any:
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        message = self._socket.recv(timeout=self._patience)
        self.received.append(bytes(message))
        self._media |= set(_MEDIA.findall(self.received[-1]))
        return ForwardMsg.FromString(self.received[-1])

    def _get(self, url: str) -> None:
        with _OPENER.open(urllib.request.Request(url, headers={"Cookie": self._cookie})) as answer:
            self.received += [str(answer.headers).encode(), answer.read()]
            if found := answer.headers.get("set-cookie"):
                self._cookie = found.split(";")[0]

    def _upload(self, place: str, name: str, content: bytes) -> None:
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        headers = {
            "Content-Type": "multipart/form-data; boundary=x",
            "Cookie": self._cookie,
            "X-Xsrftoken": self._cookie.partition("=")[2],
        }
        url = self._url.rstrip("/") + place
        request = urllib.request.Request(url, head + content + b"\r\n--x--\r\n", headers, method="PUT")
        with _OPENER.open(request) as answer:
            self.received.append(answer.read())


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine alone
