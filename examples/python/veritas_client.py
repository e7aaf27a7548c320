#!/usr/bin/env python3
"""Asks the daemon of Veritas SDR and prints the answer as it comes. Written from docs/formats/wire.md."""

import argparse
import os
import signal
import socket
import struct
import sys

HEADER = struct.Struct("<4sHHIIQ")  # magic, version, kind, flags, length of the body, request id
HELLO, WELCOME, ERROR, GENERATE, DELTA, FINISH, CANCEL, CREDIT = 1, 2, 3, 16, 17, 18, 19, 20
BODY_BYTES_MAX, CREDIT_WINDOW = 64 << 20, 64
REASONS = ["unspecified", "stop", "length", "content_filter", "cancelled"]
EXIT_CODES = [1] * 4 + [2] * 5 + [3] * 2 + [4] * 2 + [5] * 8 + [130]  # by the number of the error's code


def fail(exit_code, message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def varint(number):
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def field(number, value):
    """A field: an int or bool as a varint; a str, bytes or an encoded message with its length before it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(body, at):
    value = shift = 0
    while body[at] >= 0x80:
        value |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | body[at] << shift, at + 1


def decode(body):
    """The values of a message by field number, each an int or bytes, in the order in which they came."""
    values, at = {}, 0
    try:
        while at < len(body):
            key, at = read_varint(body, at)
            if key & 7 == 0:
                value, at = read_varint(body, at)
            else:
                length, at = read_varint(body, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
                value, at = body[at : at + length], at + length
            values.setdefault(key >> 3, []).append(value)
    except (IndexError, KeyError):
        at = None
    return values if at == len(body) else fail(1, "a message of the daemon is malformed")


def last(values, number, default):
    return values.get(number, [default])[-1]


class Session:
    def __init__(self, path, token, trusted):
        self.buffer = bytearray()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        uid = struct.unpack("3i", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid not in (0, os.geteuid(), trusted):
            fail(5, f"the daemon is run by user {uid}, whom --trust-uid does not name")
        self.send(HELLO, 0, field(1, 1) + field(3, "veritas_client.py") + field(4, token))
        self.limits = decode(last(decode(self.receive(0, WELCOME)[1]), 5, b""))

    def send(self, kind, request_id, body):
        self.socket.sendall(HEADER.pack(b"VSDR", 1, kind, 0, len(body), request_id) + body)

    def fill(self, length):
        while len(self.buffer) < length:
            self.buffer += self.socket.recv(1 << 16) or fail(3, "the daemon has closed the connection")

    def receive(self, request_id, *kinds):
        """Kind and body of the next frame, which must be one of `kinds`; an ERROR ends the program."""
        self.fill(HEADER.size)
        magic, version, kind, flags, length, found_id = HEADER.unpack_from(self.buffer)
        if (magic, version, flags) != (b"VSDR", 1, 0) or length > BODY_BYTES_MAX:
            fail(1, "what the daemon sends is not a frame")
        self.fill(HEADER.size + length)
        body = bytes(self.buffer[HEADER.size : HEADER.size + length])
        del self.buffer[: HEADER.size + length]
        if kind == ERROR and found_id in (0, request_id):
            error = decode(body)
            code, texts = last(error, 1, 0), error.get(2, []) + error.get(3, [])  # the message, the hint
            fail(EXIT_CODES[code] if code < len(EXIT_CODES) else 1, b"\nhint: ".join(texts).decode())
        if kind not in kinds or found_id != request_id:
            fail(1, f"a frame of kind {kind} for request {found_id} was not expected")
        return kind, body

    def generate(self, body):
        """Sends the request, writes the deltas to stdout, and gives the decoded Finish."""

        def cancel(*_):  # the end still comes with a Finish; a second interrupt kills
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self.send(CANCEL, 1, b"")

        if len(body) > last(self.limits, 1, BODY_BYTES_MAX):
            fail(2, "the prompt is longer than the daemon accepts")
        self.send(GENERATE, 1, body)
        signal.signal(signal.SIGINT, cancel)
        while True:
            kind, body = self.receive(1, DELTA, FINISH)
            if kind == FINISH:
                return decode(body)
            sys.stdout.buffer.writelines(last(decode(choice), 2, b"") for choice in decode(body).get(1, []))
            sys.stdout.buffer.flush()
            self.send(CREDIT, 1, field(1, 1))


def main():
    folder = os.environ.get("XDG_RUNTIME_DIR") or "/run"
    path = os.environ.get("VERITAS_SOCKET_PATH") or f"{folder}/veritas-sdr/veritas-sdr.sock"
    parser = argparse.ArgumentParser(description="Asks the daemon of Veritas SDR and prints the answer as it comes.")
    parser.add_argument("prompt", metavar="PROMPT")
    parser.add_argument("--socket", default=path, help="default: %(default)s")
    parser.add_argument("--token-file", help="holds the secret, if the daemon asks for one")
    parser.add_argument("--trust-uid", type=int, help="a user whose daemon is believed besides yours and root's")
    parser.add_argument("--model", default="", help="name of a loaded model; not needed if there is only one")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is, without a chat template")
    parser.add_argument("-n", type=int, help="tokens to generate at most")
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    try:
        token = open(args.token_file, "rb").read().rstrip(b"\r\n") if args.token_file else b""
        chat = field(1, field(1, "user") + field(2, args.prompt)) + field(2, True)
        prompt = field(3, field(1, args.prompt)) if args.raw else field(2, chat)
        sampling = b"".join(field(n, value) for n, value in ((1, args.seed), (26, args.n)) if value is not None)
        request = field(1, args.model) + prompt + field(5, sampling) + field(7, True) + field(12, CREDIT_WINDOW)
        finish = Session(args.socket, token, args.trust_uid).generate(request)
    except (OSError, ValueError) as error:  # no daemon; a negative number, or a prompt that is not text
        fail(3 if isinstance(error, OSError) else 2, error)
    except KeyboardInterrupt:
        sys.exit(130)
    reason = last(decode(last(finish, 1, b"")), 2, 0)
    print(f"\n[{REASONS[reason] if reason < 5 else reason}, seed {last(finish, 4, 0)}]", file=sys.stderr)
    sys.exit(130 if reason == 4 else 0)


if __name__ == "__main__":
    main()
