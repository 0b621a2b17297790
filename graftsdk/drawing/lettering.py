"""Letters of one size: how wide a text is, and its pixels.

OpenCV 5 brings a font with the letters of most scripts, legible from 9 pixels on. With OpenCV 4, Pillow's own font
serves, which has the letters of English and little more: every other letter, "é" as well as "女", is one and the same
box. No text fails in either.
"""

from __future__ import annotations

import math
import re
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Lettering"]

CAPITALS = 0.7  # height of capital letters and digits to the font's size, in both fonts: measured on "H"
WEIGHT = 430  # of OpenCV's font, 400 is regular; light letters on dark ground need a little more
_UNBOUNDED = (1 << 24, 1 << 24)  # of the image that OpenCV asks for when it measures


class Lettering:
    """One font at one size.

    Args:
        size: of the font in pixels, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.line = math.ceil(size * 1.4)  # height of a line in pixels; letters with marks above and below fit
        self._face: Any = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
        # Aileron's letters are narrower: at 1.15 times the size both fonts look alike.
        self._font = None if self._face else ImageFont.load_default(round(size * 1.15))
        self._widths: dict[str, int] = {}  # a label is measured once, not once a person

    def width(self, text: str) -> int:
        """Pixels from the text's beginning to where the next would begin."""
        if text not in self._widths:
            self._widths[text] = max(math.ceil(self._measured(text)), 0)
        return self._widths[text]

    def ink(self, text: str) -> npt.NDArray[np.uint8]:
        """uint8[line, width of the text]: how much of each pixel the letters cover; capitals stand in the middle."""
        wide, base = max(self.width(text), 1), self.line / 2 + CAPITALS / 2 * self.size
        if self._font is None:
            letters = np.zeros((self.line, wide), np.uint8)
            cv2.putText(letters, self._spaced(text), (0, round(base)), 255, self._face, self.size, WEIGHT)
            return letters
        picture = Image.new("L", (wide, self.line), 0)
        ImageDraw.Draw(picture).text((0, round(base)), text, fill=255, font=self._font, anchor="ls")
        return np.asarray(picture)

    def shortened(self, text: str, room: int) -> str:
        """The text, or its two ends around an ellipsis where it is wider than `room` pixels."""
        if self.width(text) <= room:
            return text
        text = text[:200] + text[-200:]  # hostile lengths are not measured letter by letter
        low, high = 0, len(text) // 2
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.width(f"{text[:middle]}…{text[-middle:]}") <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        return f"{text[:low]}…{text[-low:]}" if low else "…"

    def wrapped(self, text: str, room: int, most: int) -> list[str]:
        """The words of the text in at most `most` lines of at most `room` pixels."""
        lines: list[str] = []
        for word in text[:2000].split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer) <= room:
                lines[-1] = longer
            elif len(lines) < most:
                lines.append(self.shortened(word, room))
            else:
                lines[-1] = self.shortened(f"{lines[-1]} …", room)
                break
        return lines

    def _measured(self, text: str) -> float:
        if self._font is not None:
            return self._font.getlength(text)
        # OpenCV leaves spaces at the end out: a letter behind them keeps them.
        whole, letter = (
            cv2.getTextSize(_UNBOUNDED, shown, (0, 0), self._face, self.size, WEIGHT)
            for shown in (f"{self._spaced(text)}.", ".")
        )
        return float(whole[2] - letter[2])

    def _spaced(self, text: str) -> str:
        # Its spaces are so narrow, rounded down to whole pixels, that small words run together: seen below 14 pixels.
        return re.sub("(?<! ) (?! )", "  ", text) if self.size < 14 else text
