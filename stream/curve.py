"""Keys of nodes: who may connect, and proof of who answers (CURVE, which also encrypts).

One machine needs none: ipc sockets are for their owner alone, and tcp is bound to the loopback address. Between
machines each node has a key pair, made by ``hebbstream keys FOLDER NAME``:

``FOLDER/NAME.key_secret``   stays where it is, readable by its owner alone
``FOLDER/NAME.key``          goes to the others: whoever listens keeps a folder of those it lets in

CURVE without such a list encrypts but lets in any key at all, so there is no way to leave it out here.

The trap of ZAP domains: libzmq asks the authenticator about a connection under the domain of the *socket*; pyzmq's
``configure_curve(domain="*")`` does not hold for a socket with a domain of its own, and then nobody gets in. Both sides
take :data:`DOMAIN` here, and a test lets a good peer in and keeps three bad ones out.
"""

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from stream.errors import ConfigError

__all__ = ["Curve", "guard_endpoint", "make_keys"]

DOMAIN = "hebbstream"


class Curve:
    """The keys with which a process listens and connects.

    Parameters
    ----------
    public, secret
        This node's key pair, in the 40 characters of Z85.
    allow
        Public keys of those that may connect here; None if nothing listens here.
    server
        Public key of the node that is connected to; None if nothing is, or if it is given with each socket.
    """

    def __init__(
        self, public: bytes, secret: bytes, *, allow: Collection[bytes] | None = None, server: bytes | None = None
    ) -> None:
        self._public, self._secret = public, secret
        self._allow = frozenset(allow) if allow is not None else None
        self._server = server
        self._authenticator: ThreadAuthenticator | None = None

    @classmethod
    def of_files(cls, secret: Path, *, allow: Path | None = None, server: Path | None = None) -> "Curve":
        """Read keys from files.

        Parameters
        ----------
        secret
            This node's ``.key_secret``.
        allow
            Folder of ``.key`` files of those that may connect here; None if nothing listens here.
        server
            ``.key`` of the node that is connected to; None if nothing is.

        Raises
        ------
        ConfigError
            If a file is missing or no key, if the secret one may be read by others, or the folder holds no key.
        """
        public, own = _load(secret)
        if own is None:
            raise ConfigError(f"key {secret}: holds no secret key; give the file that ends in .key_secret")
        if secret.stat().st_mode & 0o077:
            raise ConfigError(f"key {secret}: others may read it; chmod 600 {secret}")
        if allow is not None and not (allow.is_dir() and any(allow.glob("*.key"))):
            raise ConfigError(f"keys {allow}: no .key file there, so nobody could connect; copy the peers' .key files")
        return cls(
            public,
            own,
            allow=[_load(path)[0] for path in sorted(allow.glob("*.key"))] if allow is not None else None,
            server=_load(server)[0] if server is not None else None,
        )

    def callback(self, domain: str, key: bytes) -> bool:
        """Tell the authenticator whether a key may come in."""
        return self._allow is not None and key in self._allow

    def towards(self, server: bytes) -> "Curve":
        """Return the same keys for connecting to a node of that public key."""
        return Curve(self._public, self._secret, server=server)

    def secure_server(self, socket: "zmq.Socket[bytes]") -> None:
        """Let only keys of the list in. Call before binding."""
        if self._allow is None:
            raise ConfigError("a listening node needs the folder of those that it lets in; give --allow FOLDER")
        if self._authenticator is None:  # one for all sockets of a context: libzmq knows a single place to ask
            self._authenticator = ThreadAuthenticator(socket.context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(domain=DOMAIN, credentials_provider=self)
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret
        socket.curve_server = True
        socket.zap_domain = DOMAIN.encode()

    def secure_client(self, socket: "zmq.Socket[bytes]") -> None:
        """Show our key, and talk only to the holder of the server's. Call before connecting."""
        if self._server is None:
            raise ConfigError("a connecting node needs the key of the one it connects to; give --server-key FILE")
        socket.curve_publickey, socket.curve_secretkey = self._public, self._secret
        socket.curve_serverkey = self._server

    def close(self) -> None:
        """Stop asking. Idempotent."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair; returns the public and the secret file. ConfigError if there is one of that name already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"key '{name}': wanted a name of letters, digits, '-' and '_'")
    if public.exists() or secret.exists():
        raise ConfigError(f"key {secret}: there is one already; choose another name, or remove it")
    zmq.auth.create_certificates(folder, name)
    secret.chmod(0o600)
    return public, secret


def guard_endpoint(endpoint: str, *, curve: Any, insecure: bool) -> None:
    """Refuse to listen where other machines can reach us, unless peers have to show a key, or a person insists.

    Raises
    ------
    ConfigError
        Otherwise, with both ways out.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme not in ("ipc", "tcp") or not rest:
        raise ConfigError(f"address {endpoint}: wanted ipc://PATH or tcp://HOST:PORT")
    host = rest.rpartition(":")[0].strip("[]")
    if scheme == "ipc" or curve is not None or insecure or host in ("127.0.0.1", "::1", "localhost"):
        return
    raise ConfigError(
        f"address {endpoint}: other machines could connect, and nothing tells friend from stranger; listen at "
        f"tcp://127.0.0.1:PORT, or give --key and --allow (hebbstream keys makes them), or insist with --insecure"
    )


def _load(path: Path) -> tuple[bytes, bytes | None]:
    with contextlib.suppress(OSError, ValueError):
        return zmq.auth.load_certificate(path)
    raise ConfigError(f"key {path}: not there, or no key; hebbstream keys FOLDER NAME makes one")
