"""Real videos whose frames carry their number, and a camera: an MJPEG server on this machine."""

from __future__ import annotations

import struct
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

RATE = 20.0


def picture(number, size=(120, 160)):
    """uint8[H, W, 3]: the number's eight bits side by side, dark or bright, below noise that has some bytes."""
    height, width = size
    bits = np.array([40 + 160 * (number >> bit & 1) for bit in range(8)], np.uint8)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = bits[np.arange(width) * 8 // width, None]
    image[: height // 4] = np.random.default_rng(number).integers(0, 256, (height // 4, width, 3), np.uint8)
    return image


def number(image):
    """Which picture this is."""
    height, width = image.shape[:2]
    row = image[height // 2 :].mean(axis=(0, 2))
    return sum(int(row[(2 * bit + 1) * width // 16] > 120) << bit for bit in range(8))


def write(path, codec, count=40, size=(120, 160)):
    """A video by OpenCV; the path's suffix says which container."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), RATE, size[::-1])
    assert writer.isOpened()
    for at in range(count):
        writer.write(picture(at, size))
    writer.release()
    return path


def boxes(data, start=0, end=None):
    """name -> (offset, length) of MP4 boxes side by side."""
    found, end = {}, len(data) if end is None else end
    while start < end:
        length, name = struct.unpack(">I4s", data[start : start + 8])
        found[name] = start, length
        start += length
    return found


def index_first(path, source):
    """The MP4 with its index before its frames, as it is written for the web."""
    data = source.read_bytes()
    found = boxes(data)
    start, length = found[b"moov"]
    moov = bytearray(data[start : start + length])
    at = moov.index(b"stco") + 12
    for entry in range(struct.unpack(">I", moov[at - 4 : at])[0]):
        place = slice(at + 4 * entry, at + 4 * entry + 4)
        moov[place] = struct.pack(">I", struct.unpack(">I", moov[place])[0] + length)
    head = found[b"ftyp"][1]
    path.write_bytes(data[:head] + moov + data[head:start])
    return path


def mkv(path, times, known=True, index=b""):
    """A Matroska of JPEG frames shown at `times` (milliseconds), one cluster each.

    `known`: the segment says how long it is. `index`: what follows the clusters.
    """

    def element(name, content, size=None):
        size = struct.pack(">Q", 1 << 56 | len(content)) if size is None else size
        return bytes.fromhex(name) + size + content

    def whole(name, value):
        return element(name, struct.pack(">I", value))

    video = element("e0", whole("b0", 160) + whole("ba", 120))
    track = whole("d7", 1) + whole("73c5", 1) + whole("83", 1) + element("86", b"V_MJPEG") + video
    clusters = b""
    for at, shown in enumerate(times):
        coded = cv2.imencode(".jpg", picture(at))[1].tobytes()
        clusters += element("1f43b675", whole("e7", shown) + element("a3", b"\x81\0\0\x80" + coded))
    info = element("1549a966", whole("2ad7b1", 1_000_000) + element("4489", struct.pack(">d", times[-1] + 50.0)))
    body = info + element("1654ae6b", element("ae", track)) + clusters + index
    head = element("1a45dfa3", element("4282", b"matroska") + whole("4287", 4) + whole("4285", 2))
    path.write_bytes(head + element("18538067", body, None if known else b"\x01" + b"\xff" * 7))
    return path


CUES = bytes.fromhex("1c53bb6b") + struct.pack(">Q", 1 << 56 | 64) + bytes.fromhex("ec") + b"\xbf" + b"\0" * 62


class _Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.set()
        try:
            self.server.answer(self)
        except OSError:  # the reader has gone
            self.server.left.set()


@contextmanager
def _serving(answer):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = False  # closing waits for those that answer
    server.answer, server.asked, server.left, server.over = answer, *(threading.Event() for _ in range(3))
    server.url = f"http://127.0.0.1:{server.server_port}/video"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def camera(count, pause=0.01, hang=False):
    """A server that sends `count` pictures, then breaks off within one, or falls silent; None: it never speaks."""

    def answer(request):
        if count is None:
            request.server.over.wait(30)
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        request.end_headers()
        for at in range(count):
            request.wfile.write(_part(at))
            time.sleep(pause)
        if hang:
            request.server.over.wait(30)
        else:
            request.wfile.write(_part(count)[:200])

    return _serving(answer)


def _part(at):
    coded = cv2.imencode(".jpg", picture(at))[1].tobytes()
    return b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(coded), coded)


def download(path):
    """A server that sends a file."""

    def answer(request):
        data = path.read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return _serving(answer)
