"""What a notebook shows of a prediction: a picture of bounded size and a table of its persons."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from graftsdk.drawing.draw import color_of, number_of
from graftsdk.drawing.pictures import encode
from graftsdk.text import counted, one_line

if TYPE_CHECKING:
    from graftsdk.prediction import Person, Prediction

__all__ = ["html"]

LEAST_SIDE, MOST_SIDE = 480, 800  # pixels of the picture's longer side; a notebook keeps every picture in its file
MOST_PERSONS = 20  # rows of the table
QUALITY = 85  # of the JPEG: 40 to 150 KB at 800 pixels


def html(prediction: Prediction) -> str:
    """HTML in which every name that others chose is escaped; no script, no style outside its own elements."""
    height, width = prediction.size
    picture = encode(prediction.plot(side=min(max(height, width, LEAST_SIDE), MOST_SIDE)), ".jpg", QUALITY)
    heading = [_text(prediction.source or "image")]
    if prediction.frame is not None:
        heading.append(f"frame {prediction.frame}")
    heading += [f"{width}x{height}", counted(len(prediction), "person")]
    if prediction.truncated:
        heading.append("there were more")
    rows = [_row(person) for person in prediction[:MOST_PERSONS]]
    if len(prediction) > MOST_PERSONS:
        rows.append(f'<tr><td colspan="3">and {len(prediction) - MOST_PERSONS} more</td></tr>')
    head = "<tr><th>person</th><th>score</th><th>attributes</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    source = base64.b64encode(picture).decode("ascii")
    return (
        f"<div><div><b>{heading[0]}</b> &middot; {' &middot; '.join(heading[1:])}</div>"
        f'<img style="max-width:100%" alt="{heading[0]}" src="data:image/jpeg;base64,{source}">{table}</div>'
    )


def _row(person: Person) -> str:
    number = number_of(person)
    blue, green, red = color_of(number)
    told = []
    for attribute in person:
        finding = attribute.finding()
        if finding is not None:
            question, answer = (escape(text) for text in finding)
            score = f"<small>{attribute.scores[attribute.name]:.2f}</small>"
            told.append(f"{question} <b>{answer}</b> {score}" if answer else f"<b>{question}</b> {score}")
    mark = f'<span style="color:rgb({red},{green},{blue})">&#9632;</span> {number}'
    score = "" if person.score is None else f"{person.score:.2f}"
    attributes = " &middot; ".join(told) or "nothing to tell"
    return f'<tr><td>{mark}</td><td>{score}</td><td style="text-align:left">{attributes}</td></tr>'


def _text(text: str) -> str:
    return escape(one_line(text))
