"""How replicas, which are processes of their own, get at the run's ledger: they ask their parent."""

import contextlib
import os
import threading
from collections.abc import Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any, Final

from distilabel_dagster.engine.own_calls import Desk
from distilabel_dagster.ledger.calls import StoredResponse

_METHODS: Final = frozenset({"number", "begin", "finish"})


class ReplicaDesk:
    """The parent's end: a thread for each replica that asks. Everything travels by pickle, between own processes only.

    Args:
        step: the pickled step, which each replica gets first. It isn't among what a process is started with: whoever
            starts one waits until more than a pipe holds is read, and before that it imports the user's program.

    Attributes:
        address: where replicas reach it.
        key: what they show.
    """

    def __init__(self, step: bytes) -> None:
        self.key = os.urandom(32)
        self._step = step
        self._listener = Listener()
        self.address: Any = self._listener.address
        self._desks: dict[int, Desk] = {}
        self._is_closed = False
        threading.Thread(target=self._accept, name="replica-desk", daemon=True).start()

    def open(self, seq_no: int, desk: Desk) -> None:
        """Take questions about a batch."""
        self._desks[seq_no] = desk

    def close_batch(self, seq_no: int) -> None:
        """Take no more questions about a batch."""
        self._desks.pop(seq_no, None)

    def close(self) -> None:
        """Let no further replica in; safe to repeat."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            Client(self.address).close()  # a thread that waits in `accept` sees nothing of a close
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError):
                connection = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: "Connection[Any, Any]") -> None:
        # In a thread of its own from the first word on: one that falls silent while it shows its key holds up nobody.
        with contextlib.suppress(OSError, EOFError, AuthenticationError), connection:
            deliver_challenge(connection, self.key)
            answer_challenge(connection, self.key)
            connection.send_bytes(self._step)
            while True:
                seq_no, method, arguments = connection.recv()
                assert method in _METHODS  # noqa: S101  (own processes ask for nothing else)
                try:
                    answer: tuple[bool, Any] = (True, getattr(self._desks[seq_no], method)(*arguments))
                except BaseException as error:  # noqa: BLE001  (raised again in the replica)
                    answer = (False, error)
                connection.send(answer)


class RemoteDesk:
    """A replica's end of it, for one batch; see `Desk`.

    Args:
        connection: to the parent.
        lock: held while a question is out.
        seq_no: the batch.
    """

    def __init__(self, connection: "Connection[Any, Any]", lock: "threading.Lock", seq_no: int) -> None:
        self._connection = connection
        self._lock = lock
        self._seq_no = seq_no

    def number(self, digests: Sequence[bytes]) -> list[int]:
        """Number requests of the batch."""
        numbers: list[int] = self._ask("number", digests)
        return numbers

    def begin(
        self, model_name: str, endpoint: str, keys: Sequence[bytes]
    ) -> tuple[dict[bytes, dict[str, Any]], list[bytes]]:
        """Give responses that are there, and the keys that the asker is to make."""
        begun: tuple[dict[bytes, dict[str, Any]], list[bytes]]
        begun = self._ask("begin", model_name, endpoint, keys)
        return begun

    def finish(self, made: Sequence[StoredResponse], failed: Sequence[bytes]) -> None:
        """Keep what was made."""
        self._ask("finish", made, failed)

    def _ask(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            self._connection.send((self._seq_no, method, arguments))
            is_answer, value = self._connection.recv()
        if not is_answer:
            raise value
        return value


def connect(address: Any, key: bytes) -> "tuple[Connection[Any, Any], bytes]":
    """Reach the parent from a replica, and get the pickled step."""
    connection = Client(address, authkey=key)
    return connection, connection.recv_bytes()
