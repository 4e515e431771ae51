"""How long a server is waited for, against servers that send an answer byte by byte and never stop for long."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest

from fusion.sources.http import Endpoint

ANSWER = b'{"choices": [%s]}' % b", ".join([b'{"text": "words"}'] * 4)
BEFORE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
ERROR = b"HTTP/1.1 500 Busy\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
PAUSE = 0.02
"""Seconds between two bytes: much less than the client waits for one, and all of them take longer than it waits."""


@contextmanager
def dripping(at_once, slowly, pause=PAUSE):
    """The endpoint of a server that answers once; it waits a third of the time of the slow part, if slow."""

    def answer():
        connection, _ = listening.accept()
        with connection:
            asked = b""
            while not asked.endswith(b"{}"):  # what is not read when it is closed resets the connection
                asked += connection.recv(65536)
            connection.sendall(at_once)
            for byte in slowly:
                time.sleep(pause)
                try:
                    connection.sendall(bytes([byte]))
                except ConnectionError:  # the client has had enough
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        timeout = len(slowly) * PAUSE / 3 if pause else 5.0
        yield Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/v1/completions", None, timeout, 0, 0.0)
        thread.join()


@pytest.mark.parametrize(("at_once", "slowly"), [(b"", BEFORE), (BEFORE, ANSWER)], ids=["head", "body"])
def test_a_server_that_drips_is_given_up_when_the_time_for_the_whole_answer_is_over(at_once, slowly):
    with (
        dripping(at_once, slowly) as endpoint,
        pytest.raises(ValueError, match=r"the last time with TimeoutError: timed"),
    ):
        endpoint.post({})


def test_an_error_that_drips_is_told_by_its_status():
    with (
        dripping(ERROR, ANSWER) as endpoint,
        pytest.raises(ValueError, match=r"with status 500: \(and the rest .* not come"),
    ):
        endpoint.post({})


def test_an_answer_in_many_pieces_that_comes_in_time_is_read():
    with dripping(BEFORE, ANSWER, pause=0) as endpoint:
        assert len(endpoint.post({})["choices"]) == 4
